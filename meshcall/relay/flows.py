"""What a relay remembers: leases, the flows that callers opened to them, and the routes of established flows.

A flow is tentative until the caller has shown to be where it says (proof) and the holder has sent on
it (answer).  Then its two routes stand in the flat table by which packets are forwarded without
looking at anything else.  All tables are bounded by the policy; who may enter is decided in `core`.
"""

from __future__ import annotations

from meshcall.dht.node_id import source_of
from meshcall.relay.places import Place, endpoint_of_place
from meshcall.relay.quota import NO_LIMIT, Allowance, Quotas
from meshcall.wire.relay import MAGIC, TO_CALLER, TO_FLOW, TO_HOLDER, TO_LEASE, frame

BARRED_MAX = 64
"""Senders that one lease keeps out at a time; the oldest goes first."""


class Lease:
    """A device's place at this relay."""

    __slots__ = (
        "allowance", "barred", "device", "established", "expires", "flows", "identity", "is_member", "lease_id", "link",
        "pending", "place", "salt", "source_key",
    )  # fmt: skip

    def __init__(
        self, lease_id: bytes, salt: bytes, device: bytes, identity: bytes, is_member: bool, allowance: Allowance
    ) -> None:
        self.lease_id = lease_id
        self.salt = salt
        self.device = device
        self.identity = identity
        self.is_member = is_member
        self.allowance = allowance
        self.place: Place | None = None
        """Where the holder is, proven; None: nowhere (yet, or any more)."""
        self.pending: Place | None = None
        """Where an authenticated packet of it came from last, not yet proven."""
        self.source_key = b""
        """The address of the latter as quotas know it."""
        self.link: int | None = None
        self.expires = 0.0
        self.flows: dict[bytes, Flow] = {}
        """By caller's place."""
        self.established = 0
        self.barred: dict[bytes, float] = {}
        """Senders (as `source_of`) whose flows the holder dropped, and until when they stay out."""


class Source:
    """Callers at one address."""

    __slots__ = ("allowance", "flows")

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.flows = 0


class Route:
    """One direction of an established flow: what comes from `source` with this id goes to `destination`."""

    __slots__ = ("destination", "frame_id", "head", "last", "lease", "opening", "payer", "source")

    def __init__(
        self,
        now: float,
        kind: int,
        frame_id: bytes,
        source: Place,
        head: bytes,
        destination: Place,
        lease: Allowance,
        payer: Allowance,
    ) -> None:
        self.opening = bytes([MAGIC, kind, 0, 0])
        """The first four bytes of what comes in; the kind is TO_LEASE or TO_FLOW."""
        self.frame_id = frame_id
        self.source = source
        self.head = head
        """The 12 bytes that go out in place of those that came in."""
        self.destination = destination
        self.lease = lease
        self.payer = payer
        """The sender's allowance."""
        self.last = now
        """When it last forwarded something."""


class Flow:
    """A caller's way to a lease."""

    __slots__ = (
        "answered", "caller", "flow_id", "forwarded", "lease", "opened", "proven", "received", "routes", "sent",
        "source", "source_key",
    )  # fmt: skip

    def __init__(self, now: float, flow_id: bytes, lease: Lease, caller: Place, source_key: bytes, source: Source):
        self.flow_id = flow_id
        self.lease = lease
        self.caller = caller
        self.source_key = source_key
        self.source = source
        self.opened = now
        self.proven = False
        self.answered = False
        self.forwarded = 0
        """Frames forwarded to the holder while tentative."""
        self.received = 0
        self.sent = 0
        """Bytes from and to the caller while it is not proven; never more sent than received."""
        self.routes: tuple[Route, Route] | None = None
        """To the holder, to the caller; None while tentative."""


Routes = dict[bytes, Route]
"""By id and place of the sender, joined."""


class Tables:
    """Leases, flows, sources and routes, kept consistent with each other."""

    def __init__(self, quotas: Quotas, source_bytes_per_second: int, track_changes: bool) -> None:
        self.leases: dict[bytes, Lease] = {}
        self.flows: dict[bytes, Flow] = {}
        """By flow id."""
        self.sources: dict[bytes, Source] = {}
        self.routes: Routes = {}
        self.changes: list[tuple[bytes, Route | None]] = []
        """What was put into and taken out of `routes`, for a driver that keeps a table of its own."""
        self._quotas = quotas
        self._source_bytes_per_second = source_bytes_per_second
        self.track_changes = track_changes
        """Whether `changes` is kept: only while somebody empties it."""

    @property
    def tentative(self) -> int:
        """How many flows are not established."""
        return len(self.flows) - len(self.routes) // 2

    def open_flow(self, now: float, flow_id: bytes, lease: Lease, caller: Place) -> Flow:
        """A new tentative flow; the caller of this looked at the limits."""
        key = source_of(endpoint_of_place(caller))
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = Source(self._quotas.source(self._source_bytes_per_second))
        source.flows += 1
        flow = Flow(now, flow_id, lease, caller, key, source)
        self.flows[flow_id] = flow
        lease.flows[caller] = flow
        return flow

    def close_flow(self, flow: Flow) -> None:
        """Forget a flow."""
        self._take_routes(flow)
        del self.flows[flow.flow_id]
        del flow.lease.flows[flow.caller]
        flow.source.flows -= 1
        if not flow.source.flows:
            self._quotas.forget(flow.source.allowance)
            del self.sources[flow.source_key]

    def end_lease(self, lease: Lease) -> None:
        """Forget a lease and its flows."""
        for flow in list(lease.flows.values()):
            self.close_flow(flow)
        self._quotas.forget(lease.allowance)
        del self.leases[lease.lease_id]

    def establish(self, now: float, flow: Flow) -> None:
        """If the caller is proven and the holder has answered, let its packets pass from here on."""
        lease = flow.lease
        if lease.place is None or flow.routes is not None or not (flow.proven and flow.answered):
            return
        up = Route(
            now, TO_LEASE, lease.lease_id, flow.caller, frame(TO_HOLDER, flow.flow_id), lease.place,
            lease.allowance, flow.source.allowance,
        )  # fmt: skip
        down = Route(
            now, TO_FLOW, flow.flow_id, lease.place, frame(TO_CALLER, lease.lease_id), flow.caller,
            lease.allowance, NO_LIMIT,
        )  # fmt: skip
        flow.routes = up, down
        lease.established += 1
        for route in flow.routes:
            key = route.frame_id + route.source
            self.routes[key] = route
            if self.track_changes:
                self.changes.append((key, route))

    def move_holder(self, now: float, lease: Lease, place: Place | None) -> None:
        """The holder is at another place from here on (None: nowhere for now); its flows follow."""
        lease.place = place
        lease.pending = None
        for flow in lease.flows.values():
            if flow.proven and flow.answered:
                self._take_routes(flow)
                self.establish(now, flow)

    def _take_routes(self, flow: Flow) -> None:
        if flow.routes is None:
            return
        for route in flow.routes:
            key = route.frame_id + route.source
            del self.routes[key]
            if self.track_changes:
                self.changes.append((key, None))
        flow.routes = None
        flow.lease.established -= 1
