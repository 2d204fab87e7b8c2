"""A relay core with a fake link layer and fake callers, in virtual time."""

from __future__ import annotations

import random
from collections import defaultdict

from meshcall.core import endpoint
from meshcall.relay.core import RelayCore
from meshcall.relay.places import Place, udp_place
from meshcall.relay.policy import RelayPolicy
from meshcall.wire import relay as wire

OPEN = RelayPolicy(mode="open", bytes_per_second=10_000_000)


class Chance:
    """Unpredictable enough for a test, and the same each time."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)

    def random(self, size: int) -> bytes:
        return self._rng.randbytes(size)


def place(number: int, port: int = 4000) -> Place:
    """A place in a subnet of its own."""
    return udp_place(endpoint(f"10.{number >> 8 & 255}.{number & 255}.7", port))


def key(number: int) -> bytes:
    """A 32-byte key that is not another one."""
    return number.to_bytes(4, "big") * 8


class World:
    """Carries what the core sends to inboxes by place, and lease messages to inboxes by link."""

    def __init__(self, policy: RelayPolicy = OPEN, *, seed: int = 1, tcp_port: int | None = None) -> None:
        self.now = 1000.0
        self.policy = policy
        self.chance = Chance(seed)
        self.secret = key(999)
        self.tcp_port = tcp_port
        self.inbox: dict[Place, list[bytes]] = defaultdict(list)
        self.said: dict[int, list[wire.LeaseMessage]] = defaultdict(list)
        self.sent_to: dict[Place, int] = defaultdict(int)
        self.received_from: dict[Place, int] = defaultdict(int)
        self.start()

    def start(self) -> None:
        """A relay without memory, but with its secret."""
        self.core = RelayCore(
            self.now, suite=self.chance, policy=self.policy, static=key(500), secret=self.secret, tcp_port=self.tcp_port
        )

    def drain(self) -> None:
        for to, data in self.core.outbox:
            self.inbox[to].append(data)
            self.sent_to[to] += len(data)
        self.core.outbox.clear()
        for link, message in self.core.messages:
            self.said[link].append(wire.decode_lease_message(message))
        self.core.messages.clear()

    def send(self, source: Place, data: bytes) -> None:
        self.received_from[source] += len(data)
        self.core.receive(self.now, source, data)
        self.drain()

    def say(self, link: int, who: Place, message: wire.LeaseMessage, *, identity: int = 0, device: int = 0) -> None:
        data = wire.encode_lease_message(message)
        self.core.message(self.now, link, key(identity or link), key(device or 1000 + link), who, data)
        self.drain()

    def advance(self, seconds: float) -> None:
        """Let time pass, waking the core when it wants."""
        end = self.now + seconds
        while (due := self.core.next_wake()) is not None and due <= end:
            self.now = max(due, self.now)
            self.core.wake(self.now)
            self.drain()
        self.now = end

    def prove(self, who: Place) -> None:
        """Send the last challenge back."""
        challenges = [data for data in self.inbox[who] if data[1] == wire.CHALLENGE]
        frame = wire.decode_frame(challenges[-1])
        self.send(who, wire.frame(wire.PROOF, frame.frame_id, frame.payload))

    def lease(self, link: int, who: Place, *, identity: int = 0, device: int = 0, prove: bool = True) -> bytes:
        """A granted lease whose holder has shown where it is."""
        request = wire.LeaseRequest(1, 3600)
        self.say(link, who, request, identity=identity, device=device)
        grant = self.said[link][-1]
        assert isinstance(grant, wire.LeaseGrant), grant
        if prove:
            self.prove(who)
        return grant.lease_id

    def up(self, caller: Place, lease_id: bytes, payload: bytes = b"from the caller") -> None:
        self.send(caller, wire.frame(wire.TO_LEASE, lease_id, payload))

    def down(self, holder: Place, flow_id: bytes, payload: bytes = b"holder") -> None:
        self.send(holder, wire.frame(wire.TO_FLOW, flow_id, payload))

    def flow(self, caller: Place, lease_id: bytes, holder: Place) -> bytes:
        """An established flow; returns its id."""
        self.up(caller, lease_id, bytes(200))
        flow_id = wire.decode_frame(self.inbox[holder][-1]).frame_id
        self.prove(caller)
        self.down(holder, flow_id)
        self.inbox[caller].clear()
        self.inbox[holder].clear()
        return flow_id

    def last(self, who: Place) -> wire.Frame:
        return wire.decode_frame(self.inbox[who][-1])
