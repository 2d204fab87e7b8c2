"""One mapping of our UDP port at the default gateway: made, kept alive with the least traffic, deleted at the end.

Tries PCP, then NAT-PMP, then UPnP, and stays with what worked.  Sans-IO: besides the datagrams of a
core there are HTTP `requests`, which the driver carries out and answers by number.  Nobody but the
gateway that was asked is listened to, and nothing is told that cannot be true.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.core import Endpoint
from meshcall.endpoints import is_private
from meshcall.errors import BadPacket
from meshcall.portmap.grant import Deleted, Denial, Exits, Gateway, Grant, Request, is_unreachable
from meshcall.portmap.igd import IgdClient
from meshcall.portmap.natpmp import NatPmpClient
from meshcall.portmap.pcp import PcpClient

if TYPE_CHECKING:
    from random import Random

LIFETIME_SECONDS: Final = 7200
"""Asked for (RFC 6886 section 3.3 recommends it): two small datagrams an hour keep a mapping alive."""
LIFE_SECONDS_LEAST: Final = 120.0
"""A shorter mapping is refused: to keep it would cost more than it gives (RFC 6887 section 15 has the same least)."""
LIFE_SECONDS_MAX: Final = 86_400.0
"""A longer promise is not believed (RFC 6887 section 15)."""
RENEW_AT: Final = 0.5
"""Share of the life after which it is renewed; where that failed, again of what is left (RFC 6887 section 11.2.1)."""
RENEW_SPREAD: Final = 0.0625
RENEW_SECONDS_LEAST: Final = 4.0
RETRY_SECONDS: Final = 900.0
"""After all three failed; doubled each time up to the next."""
RETRY_SECONDS_MAX: Final = 14_400.0
RECHECK_SECONDS_LEAST: Final = 30.0
"""Renewals for a reason (a restarted gateway, doubt) keep so far apart, whatever anybody announces."""
RESTART_DELAY_SECONDS: Final = 5.0
"""All clients of a restarted gateway ask within so many seconds, not at once (RFC 6887 section 14.1.3)."""
DELETE_SECONDS: Final = 2.0
"""At a clean stop the gateway has so long to confirm."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """The gateway forwards `outside` to our port; also said when the endpoint has changed."""

    outside: Endpoint
    protocol: str
    """pcp, nat-pmp or upnp."""
    private: bool
    """The outside address is itself behind a NAT (double NAT): of no use to peers in the internet."""


@dataclass(frozen=True, slots=True)
class Unmapped:
    """There is no mapping: `outside` is the one lost, None where none could be made."""

    outside: Endpoint | None
    reason: str


Event = Mapped | Unmapped
Client = PcpClient | NatPmpClient | IgdClient


class Mapper:
    """The core for one UDP port and one family.  `secret`: 16 bytes or more, kept over restarts; for the PCP nonce."""

    def __init__(self, port: int, *, secret: bytes, rng: Random, lifetime: int = LIFETIME_SECONDS) -> None:
        if len(secret) < 16:
            raise ValueError("the secret needs 16 bytes")
        self._port, self._secret, self._rng, self._lifetime = port, secret, rng, lifetime
        self._exits = Exits()
        self.outbox = self._exits.outbox
        self.requests: list[Request] = self._exits.requests
        """HTTP requests to carry out; the driver empties it and calls `answered` or `failed`."""
        self.events: list[Event] = []
        self.counters: Counter[str] = self._exits.counters
        self.mapped: Mapped | None = None
        """What is in force."""
        self.reason = ""
        """Why nothing is in force, in short fixed words; empty while it is, or while we ask for the first time."""
        self._gateway: Gateway | None = None
        self._left: list[type[Client]] = []
        """Protocols not yet tried in this round."""
        self._client: Client | None = None
        self._asking = False
        self._renew_at: float | None = None
        self._expires: float | None = None
        self._retry_at: float | None = None
        self._retry_wait = RETRY_SECONDS
        self._error_wait = 0.0
        self._rechecked_at = float("-inf")
        self._deleting_until: float | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing is under way and nothing in force: after `stop`, the driver may end."""
        return self._client is None

    @property
    def ends(self) -> float | None:
        """Until when the mapping in force holds unless renewed; without one, when it is asked for again."""
        return self._retry_at if self.mapped is None else self._expires

    def set_gateway(self, now: float, gateway: Gateway | None) -> None:
        """The default gateway is this one; call again after any change of the network, also with the same one."""
        if gateway == self._gateway:
            if gateway is not None:
                self.recheck(now)
            return
        self._lost("network changed")
        self._clear()
        self._gateway = gateway
        self._retry_wait = RETRY_SECONDS
        if gateway is not None:
            self._begin(now)

    def recheck(self, now: float) -> None:
        """There is reason to doubt the mapping: renew it now, or try again; at most every `RECHECK_SECONDS_LEAST`."""
        if self._asking or self._deleting_until is not None or self._gateway is None:
            return
        if now - self._rechecked_at < RECHECK_SECONDS_LEAST:
            return
        self._rechecked_at = now
        if self._client is not None:
            self._renew(now)
        else:
            self._begin(now)

    def stop(self, now: float) -> None:
        """Give the mapping back; done when `is_idle`, at most `DELETE_SECONDS` later."""
        client, mapped = self._client, self.mapped
        self._lost("stopped")
        if client is None:
            self._clear()
            self._gateway = None
            return
        self._left, self._renew_at, self._expires, self._retry_at = [], None, None, None
        self._deleting_until = now + DELETE_SECONDS
        self._asking = True
        client.ask(now, 0, None if mapped is None else mapped.outside)  # a grant may be on its way to us
        self._settle(now)

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take what came to a socket that has asked; what is not the answer to our question is counted and dropped."""
        if self._client is None:
            self.counters["not asked"] += 1
            return
        try:
            self._client.receive(now, source, data)
        except BadPacket as problem:
            self.counters[problem.reason] += 1
        self._settle(now)

    def announced(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take what came to the group of announcements, to which anybody can write: no answer comes that way."""
        if self._client is None:
            self.counters["not asked"] += 1
            return
        try:
            self._client.announced(now, source, data)
        except BadPacket as problem:
            self.counters[problem.reason] += 1
        self._heed_restart(now)

    def refused(self, now: float) -> None:
        """The system says that nobody listens at the gateway's PCP port."""
        if self._client is not None:
            self._client.refused(now)
            self._settle(now)

    def answered(self, now: float, number: int, data: bytes) -> None:
        """The whole HTTP response to a request, head and body."""
        if isinstance(self._client, IgdClient):
            self._client.answered(now, number, data)
            self._settle(now)

    def failed(self, now: float, number: int, reason: str) -> None:
        """A request was not answered; `reason` is a short fixed word."""
        if isinstance(self._client, IgdClient):
            self._client.failed(now, number, reason)
            self._settle(now)

    def wake(self, now: float) -> None:
        """Do what is due."""
        if self._deleting_until is not None and now >= self._deleting_until:
            self.counters["delete not confirmed"] += 1
            self._clear()
            self._gateway = None
            return
        if self._client is not None:
            self._client.wake(now)
            self._settle(now)
        if self._expires is not None and now >= self._expires:
            self._lost("expired")
            self._clear()
            self._begin(now)
        elif self._renew_at is not None and now >= self._renew_at and not self._asking:
            self._renew(now)
        elif self._retry_at is not None and now >= self._retry_at:
            self._begin(now)

    def next_wake(self) -> float | None:
        """When `wake` has something to do."""
        client = None if self._client is None else self._client.next_wake()
        renew = None if self._asking else self._renew_at
        times = (client, renew, self._expires, self._retry_at, self._deleting_until)
        return min((each for each in times if each is not None), default=None)

    # The turns of a mapping

    def _begin(self, now: float) -> None:
        assert self._gateway is not None
        self._retry_at, self._error_wait = None, 0.0
        self._left = [PcpClient, NatPmpClient, IgdClient] if self._gateway.family == 4 else [PcpClient]
        self._next_protocol(now, "no protocol")

    def _next_protocol(self, now: float, reason: str) -> None:
        gateway = self._gateway
        assert gateway is not None
        if not self._left:
            self._clear()
            wait = max(self._retry_wait, self._error_wait)
            self._retry_at = now + wait * self._rng.uniform(0.9, 1.1)
            self._retry_wait = min(2 * self._retry_wait, RETRY_SECONDS_MAX)
            self.reason = reason
            self.events.append(Unmapped(None, reason))
            return
        self._client = self._left.pop(0)(gateway, self._port, self._secret, self._rng, self._exits)
        self._asking = True
        self._client.ask(now, self._lifetime, None)

    def _renew(self, now: float) -> None:
        assert self._client is not None
        self.counters["renewals"] += 1
        self._asking = True
        self._client.ask(now, self._lifetime, None if self.mapped is None else self.mapped.outside)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """See what came of the question."""
        while self._client is not None and self._asking and (outcome := self._client.outcome) is not None:
            self._asking, self._client.outcome = False, None
            if self._deleting_until is not None:
                self.counters["deleted" if isinstance(outcome, Deleted) else "delete refused"] += 1
                self._clear()
                self._gateway = None
            elif isinstance(outcome, Grant):
                self._granted(now, outcome)
            elif isinstance(outcome, Denial):
                self._denied(now, outcome)

    def _granted(self, now: float, grant: Grant) -> None:
        assert self._client is not None
        assert self._gateway is not None
        if is_unreachable(grant.outside, self._gateway.family):
            self._disbelieve(now, "impossible outside address")
            return
        if grant.life < LIFE_SECONDS_LEAST:
            self._disbelieve(now, "life too short")
            return
        life = min(grant.life, LIFE_SECONDS_MAX)
        self._left, self._retry_wait = [], RETRY_SECONDS
        self._expires = now + life
        self._renew_at = now + life * (RENEW_AT + self._rng.uniform(0, RENEW_SPREAD))
        current = Mapped(grant.outside, self._client.name, is_private(grant.outside))
        self.reason = ""
        if current != self.mapped:
            self.mapped = current
            self.events.append(current)

    def _disbelieve(self, now: float, reason: str) -> None:
        self.counters[reason] += 1
        self._lost(reason)
        self._renew_at = self._expires = None
        self._next_protocol(now, reason)

    def _denied(self, now: float, denial: Denial) -> None:
        self.counters[denial.reason] += 1
        if self.mapped is not None and self._expires is not None:
            # it holds until its end; ask again when half of what is left has passed
            wait = max((self._expires - now) * RENEW_AT, RENEW_SECONDS_LEAST)
            self._renew_at = now + wait
            return
        self._error_wait = max(self._error_wait, denial.wait)
        self._next_protocol(now, denial.reason)

    def _heed_restart(self, now: float) -> None:
        """The gateway has said that it lost its state: ask soon, but not all at once, and not for every such word."""
        client = self._client
        if client is None or not client.restarted:
            return
        client.restarted = False
        if self._asking or self._renew_at is None or now - self._rechecked_at < RECHECK_SECONDS_LEAST:
            return
        self.counters["gateway restarted"] += 1
        self._rechecked_at = now
        self._renew_at = min(self._renew_at, now + self._rng.uniform(0, RESTART_DELAY_SECONDS))

    def _lost(self, reason: str) -> None:
        if self.mapped is not None:
            self.events.append(Unmapped(self.mapped.outside, reason))
            self.mapped, self.reason = None, reason

    def _clear(self) -> None:
        self._client, self._asking, self._left = None, False, []
        self._renew_at = self._expires = self._retry_at = self._deleting_until = None
        self.requests.clear()
