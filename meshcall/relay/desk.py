"""The desk where leases are given out: requests, renewals, releases, and where each holder is.

A holder is reached only where it has shown to be: a place over UDP is proven by a challenge that comes
back (else a holder could have its callers' packets sent to a third party), a TCP connection by itself.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Protocol

from meshcall.dht.limits import RateLimiter
from meshcall.dht.node_id import source_of
from meshcall.errors import BadPacket
from meshcall.relay.events import LeaseOver, LeaseTaken, RelayEvent
from meshcall.relay.flows import BARRED_MAX, Lease, Tables
from meshcall.relay.places import Place, endpoint_of_place, is_tcp_place
from meshcall.relay.policy import LeaseCounts, RelayPolicy, lease_refusal
from meshcall.relay.quota import Quotas
from meshcall.wire import relay as wire

BAR_SECONDS = 60.0
MESSAGES_PER_SECOND = 2.0
MESSAGES_BURST = 16.0
"""Lease messages of one device."""
DEVICES_MAX = 4096
"""Devices whose rate is remembered."""
RETRY_SECONDS = 60
TOO_OFTEN_SECONDS = 2
LIFE_SECONDS_MIN = 60


class Chance(Protocol):
    """What the relay needs of a crypto suite."""

    def random(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        ...


class LeaseDesk:
    """Leases by what authenticated devices ask; `secret` makes the ids."""

    def __init__(
        self,
        *,
        suite: Chance,
        policy: RelayPolicy,
        secret: bytes,
        tcp_port: int | None,
        tables: Tables,
        quotas: Quotas,
        counters: Counter[str],
    ) -> None:
        self.policy = policy
        self.messages: list[tuple[int, bytes]] = []
        self.events: list[RelayEvent] = []
        self.unproven: list[Lease] = []
        """Leases whose holder is to be challenged at `Lease.pending`; the core reads and empties it."""
        self._suite = suite
        self._key = blake2b(secret, digest_size=32, person=b"meshcall lease").digest()
        self._tcp_port = tcp_port
        self._tables = tables
        self._quotas = quotas
        self._counters = counters
        self._asks = RateLimiter(MESSAGES_PER_SECOND, MESSAGES_BURST, DEVICES_MAX)

    def message(self, now: float, link: int, identity: bytes, device: bytes, place: Place, data: bytes) -> None:
        """Take a lease message; the parameters are those of `RelayCore.message`."""
        try:
            message = wire.decode_lease_message(data)
        except BadPacket as bad:
            self._counters[bad.reason] += 1
            return
        if not self._asks.allow(now, device):
            self._counters["lease message too often"] += 1
            if isinstance(message, wire.LeaseRequest | wire.LeaseRenew):
                self._refuse(link, message.number, wire.TOO_OFTEN, TOO_OFTEN_SECONDS)
            return
        match message:
            case wire.LeaseRequest():
                self._take_request(now, link, identity, device, place, message)
            case wire.LeaseRenew(number, lease_id):
                lease = self._lease_of(device, lease_id)
                if lease is None:
                    self._refuse(link, number, wire.NO_SUCH_LEASE, 0)
                elif not self.policy.serves(identity):
                    self._refuse(link, number, wire.NOT_SERVED, RETRY_SECONDS)
                else:
                    self._grant(now, lease, link, place, number, self.policy.lease_seconds)
            case wire.LeaseRelease(lease_id):
                lease = self._lease_of(device, lease_id)
                if lease is not None:
                    self.end(lease, 0)
            case wire.FlowDrop(flow_ids):
                for flow_id in flow_ids:
                    self._drop_flow(now, device, flow_id)
            case _:
                self._counters["lease message not for a relay"] += 1

    def place_seen(self, now: float, lease: Lease, place: Place) -> None:
        """The device of a lease was seen at a place, by an authenticated packet."""
        lease.source_key = source_of(endpoint_of_place(place))
        if lease.place == place:
            lease.pending = None
        elif is_tcp_place(place) or self._is_proven(lease, place):
            self._tables.move_holder(now, lease, place)
        else:
            lease.pending = place
            self.unproven.append(lease)

    def _is_proven(self, lease: Lease, place: Place) -> bool:
        """Whether the same link has proven this place for another lease."""
        return any(each.link == lease.link and each.place == place for each in self._tables.leases.values())

    def end(self, lease: Lease, reason: int, *, tell: bool = False) -> None:
        """Take a lease away; `tell`: its holder does not know yet."""
        if tell and lease.link is not None:
            self._say(lease.link, wire.LeaseEnded(lease.lease_id, reason))
        self._tables.end_lease(lease)
        self.events.append(LeaseOver(lease.lease_id, reason))

    def _lease_of(self, device: bytes, lease_id: bytes) -> Lease | None:
        lease = self._tables.leases.get(lease_id)
        return lease if lease is not None and lease.device == device else None

    def _ticket_id(self, device: bytes, salt: bytes) -> bytes:
        """The id of a lease: random to all others, and the same again for the same device and salt."""
        return blake2b(device + salt, digest_size=wire.ID_BYTES, key=self._key).digest()

    def _take_request(
        self, now: float, link: int, identity: bytes, device: bytes, place: Place, request: wire.LeaseRequest
    ) -> None:
        wanted = None
        if request.lease_id is not None and self._ticket_id(device, request.salt) == request.lease_id:
            wanted = request.lease_id
            lease = self._lease_of(device, wanted)
            if lease is not None and self.policy.serves(identity):
                self._grant(now, lease, link, place, request.number, request.seconds)
                return
        reason = self._admit(identity, device, place)
        if reason is not None:
            self._refuse(link, request.number, reason, RETRY_SECONDS)
            return
        salt = request.salt if wanted is not None else self._suite.random(wire.SALT_BYTES)
        lease_id = wanted or self._ticket_id(device, salt)
        while lease_id in self._tables.leases or not any(lease_id):
            salt = self._suite.random(wire.SALT_BYTES)
            lease_id = self._ticket_id(device, salt)
        lease = Lease(
            lease_id, salt, device, identity, self.policy.is_member(identity),
            self._quotas.lease(self.policy.lease_bytes_per_second),
        )  # fmt: skip
        self._tables.leases[lease_id] = lease
        self._grant(now, lease, link, place, request.number, request.seconds)
        self.events.append(LeaseTaken(lease_id, identity, lease.is_member))

    def _admit(self, identity: bytes, device: bytes, place: Place) -> int | None:
        """Why there is no lease for this device; None: there is, room for a member has been made."""
        leases = self._tables.leases.values()
        source = source_of(endpoint_of_place(place))
        counts = LeaseCounts(
            total=len(leases),
            of_guests=sum(not lease.is_member for lease in leases),
            of_device=sum(lease.device == device for lease in leases),
            of_identity=sum(lease.identity == identity for lease in leases),
            of_source=sum(lease.source_key == source for lease in leases),
        )
        reason = lease_refusal(self.policy, identity, counts, self._quotas.load)
        if reason == wire.NO_ROOM and self.policy.is_member(identity):
            guest = next((lease for lease in leases if not lease.is_member and not lease.established), None)
            if guest is not None:
                self.end(guest, wire.MADE_ROOM, tell=True)
                return None
        return reason

    def _grant(self, now: float, lease: Lease, link: int, place: Place, number: int, seconds: int) -> None:
        life = max(min(seconds, self.policy.lease_seconds), LIFE_SECONDS_MIN)
        lease.expires = now + life
        lease.link = link
        self.place_seen(now, lease, place)
        self._say(
            link,
            wire.LeaseGrant(
                number,
                lease.lease_id,
                lease.salt,
                life,
                lease.allowance.rate,
                self.policy.packets_per_second(lease.allowance.rate),
                self.policy.flows_per_lease_max,
                self._tcp_port,
            ),
        )
        self._counters["granted"] += 1

    def _refuse(self, link: int, number: int, reason: int, retry_seconds: int) -> None:
        self._counters["refused"] += 1
        self._say(link, wire.LeaseRefusal(number, reason, retry_seconds))

    def _say(self, link: int, message: wire.LeaseMessage) -> None:
        self.messages.append((link, wire.encode_lease_message(message)))

    def _drop_flow(self, now: float, device: bytes, flow_id: bytes) -> None:
        flow = self._tables.flows.get(flow_id)
        if flow is None or flow.lease.device != device:
            return
        barred = flow.lease.barred
        barred.pop(flow.source_key, None)
        barred[flow.source_key] = now + BAR_SECONDS
        if len(barred) > BARRED_MAX:
            del barred[next(iter(barred))]
        self._tables.close_flow(flow)
        self._counters["flow dropped by its holder"] += 1
