"""One UPnP client for one UDP mapping: search, description, outside address, mapping, in as few requests as can be.

Renewing takes two requests, as the control URL is remembered.  Where it no longer works, because the
gateway has started anew, the search is done once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.errors import BadPacket
from meshcall.portmap import upnp
from meshcall.portmap.grant import Deleted, Denial, Exits, Gateway, Grant, Outcome, Request, Tries, is_unreachable
from meshcall.portmap.http import Url, parse_response

if TYPE_CHECKING:
    from random import Random

SEARCH_WAITS_SECONDS = (1.5, 2.0)
"""The first search asks for gateways, the second for their services too."""
FOUND_MAX = 4
"""Devices that answered the search and are looked at."""
ADD_TRIES_MAX = 5
"""Ports tried where others have taken them."""
PERMANENT_LIFE_SECONDS = 3600.0
"""A lease without an end is looked after as if it had this one: the gateway may forget it any time."""
RANDOM_PORTS = (20_000, 60_000)


class IgdClient:
    """Asks the gateway by UPnP for one mapping; `outcome` says what came of the last question."""

    name = "upnp"

    def __init__(self, gateway: Gateway, port: int, secret: bytes, rng: Random, exits: Exits) -> None:
        self._gateway, self._port, self._rng, self._exits = gateway, port, rng, exits
        self._tries = Tries(SEARCH_WAITS_SECONDS)
        self._found: list[Url] = []
        self._services: list[upnp.Service] = []
        self._service: upnp.Service | None = None
        """The one that worked."""
        self._number = 0
        self._then: Callable[[bytes], None] | None = None
        """What the answer under way is for."""
        self._life = 0
        self._outer_port = 0
        self._host = b""
        self._adds = 0
        self._is_renewal = False
        self.permanent = False
        """The gateway knows no leases with an end."""
        self.outcome: Outcome | None = None
        self.restarted = False

    def ask(self, now: float, lifetime: int, suggested: Endpoint | None) -> None:
        """Ask for the mapping, anew or again; 0 seconds: for its end."""
        self.outcome, self._then = None, None
        self._life, self._adds = lifetime, 0
        self._is_renewal = self._service is not None
        self._outer_port = self._port if suggested is None else int.from_bytes(suggested[-2:], "big")
        if not lifetime:
            if self._service is None:
                self._finish(Deleted())
            else:
                self._request(self._service.control.to, upnp.encode_delete(self._service, self._outer_port), self._gone)
        elif self._service is not None:
            self._get_address(self._service)
        else:
            self._search(now)

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take an answer to the search.  Raises BadPacket."""
        if not self._gateway.is_near(source) or source[:-2] == self._gateway.local:
            raise BadPacket("wrong source")
        if self._tries.due is None:
            raise BadPacket("ssdp not asked")
        url = upnp.decode_search_answer(source, data)
        if url in self._found or len(self._found) >= FOUND_MAX:
            return
        self._found.append(url)
        if source[:-2] == self._gateway.host:  # others wait until it is clear that the gateway is silent
            self._found.insert(0, self._found.pop())
            self._tries.end()
            self._describe()

    def announced(self, now: float, source: Endpoint, data: bytes) -> None:
        """A gateway that is asked by UPnP announces nothing that we would understand.  Raises BadPacket."""
        raise BadPacket("announcement without need")

    def answered(self, now: float, number: int, data: bytes) -> None:
        """Take the whole response to a request; one that is none is as good as no answer."""
        then = self._take(number)
        if then is None:
            return
        try:
            then(data)
        except upnp.Fault as fault:
            self._fault(now, fault)
        except BadPacket as problem:
            self._step_failed(now, problem.reason)

    def failed(self, now: float, number: int, reason: str) -> None:
        """A request got no usable answer: no connection, too slow, too long."""
        if self._take(number) is not None:
            self._step_failed(now, reason)

    def refused(self, now: float) -> None:
        """Nothing listens at the PCP port; that is none of ours."""

    def wake(self, now: float) -> None:
        """Search again, or see to those who answered, or give up."""
        if self._tries.due is None or now < self._tries.due:
            return
        if self._found:
            self._tries.end()
            self._describe()
        elif self._tries.again(now):
            self._send_search(upnp.SEARCH_TARGETS)
        else:
            self._finish(Denial("upnp no answer"))

    def next_wake(self) -> float | None:
        """When to search again; a request's time is its driver's."""
        return self._tries.due

    # The steps in their order

    def _search(self, now: float) -> None:
        self._found, self._services, self._service = [], [], None
        self._tries.begin(now)
        self._send_search(upnp.SEARCH_TARGETS[:2])

    def _send_search(self, targets: tuple[str, ...]) -> None:
        for target in targets:
            self._exits.outbox.append((upnp.SSDP, upnp.encode_search(target)))

    def _describe(self) -> None:
        url = self._found.pop(0)

        def described(data: bytes) -> None:
            status, body = parse_response(data)
            if status != 200:
                raise BadPacket("http redirect" if 300 <= status < 400 else "http status")
            self._services = list(upnp.decode_description(url, body))
            if not self._services:
                raise BadPacket("upnp no service")
            self._next_service()

        self._request(url.to, upnp.encode_description_request(url), described)

    def _next_service(self) -> None:
        self._get_address(self._services.pop(0))

    def _get_address(self, service: upnp.Service) -> None:
        def got(data: bytes) -> None:
            host = upnp.decode_address(upnp.decode_action_answer(*parse_response(data)))
            if is_unreachable(Endpoint(host + b"\xff\xff"), 4):  # 0.0.0.0: this connection is down
                raise BadPacket("upnp not connected")
            self._host = host
            self._add(service)

        self._request(service.control.to, upnp.encode_get_address(service), got)

    def _add(self, service: upnp.Service) -> None:
        self._adds += 1
        lease = 0 if self.permanent else self._life
        asked = self._outer_port

        def added(data: bytes) -> None:
            try:
                texts = upnp.decode_action_answer(*parse_response(data))
            except upnp.Fault as fault:
                if not self._add_otherwise(service, fault):
                    raise
                return
            port = upnp.decode_reserved_port(texts, asked)
            self._service = service
            life = PERMANENT_LIFE_SECONDS if self.permanent else float(min(lease, upnp.LEASE_SECONDS_MAX))
            self._finish(Grant(Endpoint(self._host + port.to_bytes(2, "big")), life))

        data = upnp.encode_add(service, self._gateway.local, self._port, asked, lease)
        self._request(service.control.to, data, added)

    def _add_otherwise(self, service: upnp.Service, fault: upnp.Fault) -> bool:
        """Whether another form of the same wish has a chance; then it is on its way."""
        if self._adds >= ADD_TRIES_MAX:
            return False
        if fault.code == upnp.ONLY_PERMANENT_LEASES and not self.permanent:
            self.permanent = True
        elif fault.code in (upnp.CONFLICT, upnp.CONFLICT_ELSEWHERE):
            self._outer_port = self._rng.randrange(*RANDOM_PORTS)
        elif fault.code == upnp.SAME_PORTS_REQUIRED and self._outer_port != self._port:
            self._outer_port = self._port
        elif fault.code in (401, 402, 602) and service.kind == upnp.SERVICES[0]:
            service = upnp.Service(upnp.SERVICES[1], service.control)  # says version 2, knows version 1
        else:
            return False
        self._add(service)
        return True

    def _gone(self, data: bytes) -> None:
        upnp.decode_action_answer(*parse_response(data))
        self._finish(Deleted())

    # What goes wrong

    def _fault(self, now: float, fault: upnp.Fault) -> None:
        if not self._life and fault.code == 714:
            self._finish(Deleted())
        else:
            self._step_failed(now, fault.reason)

    def _step_failed(self, now: float, reason: str) -> None:
        if not self._life or not (self._is_renewal or self._services or self._found):
            self._finish(Denial(reason))
            return
        self._exits.counters[reason] += 1
        if self._is_renewal:
            self._is_renewal = False
            self._search(now)
        elif self._services:
            self._next_service()
        else:
            self._describe()

    def _request(self, to: Endpoint, data: bytes, then: Callable[[bytes], None]) -> None:
        self._number = self._exits.take_number()
        self._then = then
        self._exits.requests.append(Request(self._number, to, data))

    def _take(self, number: int) -> Callable[[bytes], None] | None:
        if number != self._number:
            return None
        then, self._then = self._then, None
        return then

    def _finish(self, outcome: Outcome) -> None:
        self._tries.end()
        self._then = None
        self.outcome = outcome
