"""A volunteer's relay: grants leases over authenticated links, forwards frames between a lease and its callers.

Everything it sends goes to the place of a lease holder, to a caller who opened a flow, or back to
where a question came from, never longer than that question.  Lease messages come in and go out as
bytes of a link's control stream; whose link it is, the link proves.  Protocol and proof: docs/relay.md.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from meshcall.dht.limits import RateLimiter
from meshcall.dht.node_id import source_of
from meshcall.errors import BadPacket
from meshcall.relay.desk import Chance, LeaseDesk
from meshcall.relay.events import RelayStatus, Shedding
from meshcall.relay.flows import Flow, Lease, Tables
from meshcall.relay.places import Place, endpoint_of_place, is_tcp_place
from meshcall.relay.policy import GUEST_LOAD_MAX, RelayPolicy, takes_flow
from meshcall.relay.quota import NO_LIMIT, Quotas
from meshcall.wire import relay as wire

TENTATIVE_FRAMES_MAX = 16
"""Frames of a caller that reach a holder who has not answered."""
TENTATIVE_SECONDS = 10.0
TENTATIVE_PER_LEASE_MAX = 16
FORWARD_UNPROVEN_MAX = 8
"""With so many tentative flows on a lease, a new caller has to prove its address before anything is forwarded."""
FLOW_IDLE_SECONDS = 60.0
"""An established flow ends when its caller has been silent so long, whatever the holder sends."""
OPENS_PER_SECOND = 4.0
OPENS_BURST = 24.0
"""Flows opened from one address; refused ones count too."""
OPENS_TOTAL_PER_SECOND = 400.0
ANSWERS_PER_SECOND = 8.0
ANSWERS_BURST = 64.0
ANSWERS_TOTAL_PER_SECOND = 2000.0
"""Challenges, states and hello answers."""
SOURCES_MAX = 4096
COOKIE_EPOCH_SECONDS = 64.0
SWEEP_SECONDS = 2.0


class RelayCore:
    """A `core.Core` beside its lease messages.

    `secret` (32 bytes) makes lease ids and cookies; a relay that starts again with the same one gives
    its holders the same lease ids back.  `track_routes`: a driver reads and empties `route_changes`.
    """

    def __init__(
        self,
        now: float,
        *,
        suite: Chance,
        policy: RelayPolicy,
        static: bytes,
        secret: bytes,
        tcp_port: int | None = None,
        track_routes: bool = False,
    ) -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        self.counters: Counter[str] = Counter()
        self.quotas = Quotas(now, policy.bytes_per_second, policy.packet_bytes_min)
        self.tables = Tables(self.quotas, policy.source_bytes_per_second, track_routes)
        self.policy = policy
        self._suite = suite
        self._static = static
        self._cookie_key = blake2b(secret, digest_size=32, person=b"meshcall cookie").digest()
        self._tcp_port = tcp_port
        self._opens = RateLimiter(OPENS_PER_SECOND, OPENS_BURST, SOURCES_MAX, OPENS_TOTAL_PER_SECOND, OPENS_BURST * 16)
        self._answers = RateLimiter(
            ANSWERS_PER_SECOND, ANSWERS_BURST, SOURCES_MAX, ANSWERS_TOTAL_PER_SECOND, ANSWERS_TOTAL_PER_SECOND
        )
        self._desk = LeaseDesk(
            suite=suite, policy=policy, secret=secret, tcp_port=tcp_port, tables=self.tables, quotas=self.quotas,
            counters=self.counters,
        )  # fmt: skip
        self.messages = self._desk.messages
        """Lease messages to send: (link, bytes for its control stream)."""
        self.events = self._desk.events
        self._sweep_at: float | None = None
        self._is_shedding = False

    # The members of a core

    def receive(self, now: float, source: Place, data: bytes) -> None:
        """Take one frame."""
        self.quotas.refill(now)
        route = self.tables.routes.get(data[4:12] + source)
        if route is not None and data[:4] == route.opening and wire.HEAD_BYTES < len(data) <= wire.FRAME_BYTES_MAX:
            refused = self.quotas.pay(len(data), route.lease, route.payer)
            if refused:
                self.counters[f"over quota: {refused}"] += 1
                return
            route.last = now
            self.counters["forwarded"] += 1
            self.outbox.append((route.destination, route.head + data[wire.HEAD_BYTES :]))
            return
        try:
            frame = wire.decode_frame(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        match frame.kind:
            case wire.TO_LEASE:
                self._from_caller(now, source, frame)
            case wire.TO_FLOW:
                self._from_holder(now, source, frame)
            case wire.PROOF:
                self._take_proof(now, source, frame)
            case wire.CHECK:
                self._take_check(now, source, frame)
            case wire.HELLO:
                self._take_hello(now, source, frame)
            case _:
                self.counters["frame not for a relay"] += 1

    def wake(self, now: float) -> None:
        """End what is over."""
        self.quotas.refill(now)
        if self._sweep_at is not None and now >= self._sweep_at:
            self._sweep(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; None while there is no lease."""
        return self._sweep_at

    # Links

    def message(self, now: float, link: int, identity: bytes, device: bytes, place: Place, data: bytes) -> None:
        """Take a lease message of the control stream of `link`, whose far end is `device` of `identity`
        (32-byte keys, proven) and was last seen at `place`."""
        self.quotas.refill(now)
        self._desk.message(now, link, identity, device, place, data)
        self._challenge_holders(now)
        if self._sweep_at is None and self.tables.leases:
            self._sweep_at = now + SWEEP_SECONDS

    def moved(self, now: float, link: int, place: Place) -> None:
        """The far end of a link was seen at another place, by an authenticated packet."""
        for lease in self.tables.leases.values():
            if lease.link == link and lease.place != place:
                self.counters["holder moved"] += 1
                self._desk.place_seen(now, lease, place)
        self._challenge_holders(now)

    def closed(self, now: float, link: int) -> None:
        """A link is over; its leases wait for their device to come back until their life ends."""
        for lease in self.tables.leases.values():
            if lease.link == link:
                lease.link = None

    def gone(self, now: float, place: Place) -> None:
        """A TCP connection is closed."""
        for flow in [flow for flow in self.tables.flows.values() if flow.caller == place]:
            self.tables.close_flow(flow)
        for lease in self.tables.leases.values():
            if lease.place == place:
                self.tables.move_holder(now, lease, None)

    # Commands

    def set_policy(self, now: float, policy: RelayPolicy) -> None:
        """Serve by other rules from here on; leases that they do not allow end.  Rates of what exists stay."""
        self.policy = self._desk.policy = policy
        self.quotas.uplink.rate = policy.bytes_per_second
        for lease in [lease for lease in self.tables.leases.values() if not policy.serves(lease.identity)]:
            self._desk.end(lease, wire.NOT_SERVED, tell=True)

    def shut_down(self, now: float) -> None:
        """Tell all holders that their leases end here."""
        for lease in list(self.tables.leases.values()):
            self._desk.end(lease, wire.CLOSING, tell=True)

    def status(self, now: float) -> RelayStatus:
        """How the relay is doing."""
        tables = self.tables
        return RelayStatus(
            mode=self.policy.mode,
            leases=len(tables.leases),
            member_leases=sum(lease.is_member for lease in tables.leases.values()),
            flows=len(tables.flows),
            established=len(tables.routes) // 2,
            load=self.quotas.load,
            bytes_per_second_max=self.policy.bytes_per_second,
            is_squeezing=self.quotas.fair_share is not None,
            counters=dict(self.counters),
        )

    def info(self) -> wire.RelayInfo:
        """What a hello is answered with."""
        load = self.quotas.load
        accepts = load < GUEST_LOAD_MAX and len(self.tables.leases) < self.policy.leases_max
        return wire.RelayInfo(
            self._static, self.policy.mode == "open", accepts, min(int(load * 100), 100), self._tcp_port
        )

    # Frames that no route takes

    def _from_caller(self, now: float, source: Place, frame: wire.Frame) -> None:
        lease = self.tables.leases.get(frame.frame_id)
        if lease is None or lease.place is None:
            self._tell_state(now, source, frame, wire.UNKNOWN_LEASE)
            return
        flow = lease.flows.get(source)
        if flow is None:
            flow = self._open(now, source, lease, frame, proven=is_tcp_place(source))
            if flow is None:
                return
        size = len(frame.payload) + wire.HEAD_BYTES
        flow.received += size
        if not flow.proven:
            self._challenge_caller(now, lease, source, size, flow)
        if flow.forwarded >= TENTATIVE_FRAMES_MAX:
            self.counters["tentative flow over its limit"] += 1
            return
        refused = self.quotas.pay(size, lease.allowance, flow.source.allowance)
        if refused:
            self.counters[f"over quota: {refused}"] += 1
            return
        flow.forwarded += 1
        self.counters["forwarded"] += 1
        self.outbox.append((lease.place, wire.frame(wire.TO_HOLDER, flow.flow_id, frame.payload)))

    def _open(self, now: float, source: Place, lease: Lease, frame: wire.Frame, *, proven: bool) -> Flow | None:
        """A new flow, or None and a word to the caller why not."""
        if len(frame.payload) < wire.COOKIE_BYTES:
            self.counters["opened with too little"] += 1
            return None
        if not proven and len(lease.flows) - lease.established >= FORWARD_UNPROVEN_MAX:
            self._challenge_caller(now, lease, source, len(frame.payload) + wire.HEAD_BYTES, None)
            return None
        status = self._flow_refusal(now, lease, source_of(endpoint_of_place(source)), proven=proven)
        if status is not None:
            self._tell_state(now, source, frame, status)
            return None
        flow_id = self._suite.random(wire.ID_BYTES)
        while flow_id in self.tables.flows or not any(flow_id):
            flow_id = self._suite.random(wire.ID_BYTES)
        self.counters["flows opened"] += 1
        flow = self.tables.open_flow(now, flow_id, lease, source)
        flow.proven = proven
        return flow

    def _flow_refusal(self, now: float, lease: Lease, key: bytes, *, proven: bool) -> int | None:
        policy = self.policy
        known = self.tables.sources.get(key)
        if (
            len(self.tables.flows) >= policy.flows_max
            or len(lease.flows) >= policy.flows_per_lease_max
            or len(lease.flows) - lease.established >= TENTATIVE_PER_LEASE_MAX
            or (known is not None and known.flows >= policy.flows_per_source_max)
            or lease.barred.get(key, now) > now
            or not self._opens.allow(now, key, proven=proven)
        ):
            self.counters["flow refused: crowded"] += 1
            return wire.CROWDED
        if not takes_flow(policy, lease.identity, lease.established > 0, self.quotas.load):
            self.counters["flow refused: near budget"] += 1
            return wire.BUSY
        return None

    def _from_holder(self, now: float, source: Place, frame: wire.Frame) -> None:
        flow = self.tables.flows.get(frame.frame_id)
        if flow is None:
            self._tell_state(now, source, frame, wire.UNKNOWN_FLOW)
            return
        lease = flow.lease
        if source != lease.place:
            self._tell_state(now, source, frame, wire.ELSEWHERE)
            return
        size = len(frame.payload) + wire.HEAD_BYTES
        if not flow.proven and flow.sent + size > flow.received:
            self.counters["too much to an unproven caller"] += 1
            return
        refused = self.quotas.pay(size, lease.allowance, NO_LIMIT)
        if refused:
            self.counters[f"over quota: {refused}"] += 1
            return
        flow.sent += size
        flow.answered = True
        self.counters["forwarded"] += 1
        self.outbox.append((flow.caller, wire.frame(wire.TO_CALLER, lease.lease_id, frame.payload)))
        self.tables.establish(now, flow)

    # Proofs of address

    def _challenge_caller(self, now: float, lease: Lease, source: Place, size: int, flow: Flow | None) -> None:
        """Ask a caller to show that it is where it says; 20 bytes for `size` that came."""
        if size >= wire.CHALLENGE_BYTES and (flow is None or flow.sent + wire.CHALLENGE_BYTES <= flow.received):
            if flow is not None:
                flow.sent += wire.CHALLENGE_BYTES
            self._challenge(now, lease, source)

    def _challenge_holders(self, now: float) -> None:
        """Ask holders who spoke from a new place to show that they are there."""
        for lease in self._desk.unproven:
            if lease.pending is not None:
                self._challenge(now, lease, lease.pending)
        self._desk.unproven.clear()

    def _challenge(self, now: float, lease: Lease, place: Place) -> None:
        if self._may_answer(now, place):
            self.counters["challenges"] += 1
            cookie = self._cookie(lease.lease_id, place, int(now // COOKIE_EPOCH_SECONDS))
            self.outbox.append((place, wire.frame(wire.CHALLENGE, lease.lease_id, cookie)))

    def _cookie(self, lease_id: bytes, source: Place, epoch: int) -> bytes:
        said = lease_id + epoch.to_bytes(8, "big", signed=True) + source
        return blake2b(said, digest_size=wire.COOKIE_BYTES, key=self._cookie_key).digest()

    def _take_proof(self, now: float, source: Place, frame: wire.Frame) -> None:
        lease = self.tables.leases.get(frame.frame_id)
        if lease is None:
            self.counters["proof for no lease"] += 1
            return
        epoch = int(now // COOKIE_EPOCH_SECONDS)
        if all(frame.payload != self._cookie(lease.lease_id, source, each) for each in (epoch, epoch - 1)):
            self.counters["proof is wrong"] += 1
        elif lease.pending == source:
            self.tables.move_holder(now, lease, source)
            self._tell_state(now, source, frame, wire.KNOWN)
        elif lease.place is not None and lease.place != source:
            flow = lease.flows.get(source) or self._open(now, source, lease, frame, proven=True)
            if flow is not None:
                flow.proven = True
                self.tables.establish(now, flow)

    # Short answers

    def _take_check(self, now: float, source: Place, frame: wire.Frame) -> None:
        lease = self.tables.leases.get(frame.frame_id)
        if lease is not None and lease.pending == source:
            self._challenge(now, lease, source)
        elif lease is None or lease.place is None:
            self._tell_state(now, source, frame, wire.UNKNOWN_LEASE)
        else:
            self._tell_state(now, source, frame, wire.KNOWN if lease.place == source else wire.ELSEWHERE)

    def _take_hello(self, now: float, source: Place, frame: wire.Frame) -> None:
        if self.policy.mode == "off":
            self.counters["hello while off"] += 1
        elif self._may_answer(now, source):
            self.counters["hellos answered"] += 1
            self.outbox.append((source, wire.hello_answer(frame.frame_id, self.info())))

    def _tell_state(self, now: float, source: Place, frame: wire.Frame, status: int) -> None:
        """20 bytes to whoever sent at least 20."""
        if len(frame.payload) >= wire.ECHO_BYTES and self._may_answer(now, source):
            self.counters[f"told: {wire.SHOW_STATUS[status]}"] += 1
            self.outbox.append(
                (source, wire.frame(wire.STATE, frame.frame_id, frame.payload[: wire.ECHO_BYTES], status))
            )

    def _may_answer(self, now: float, place: Place) -> bool:
        allowed = self._answers.allow(now, source_of(endpoint_of_place(place)))
        if not allowed:
            self.counters["answer not given: too often"] += 1
        return allowed

    # Time

    def _sweep(self, now: float) -> None:
        tables = self.tables
        for lease in [lease for lease in tables.leases.values() if lease.expires <= now]:
            self._desk.end(lease, wire.LIFE_OVER, tell=True)
        over = []
        for flow in tables.flows.values():
            if flow.routes is not None:
                is_over = now - flow.routes[0].last >= FLOW_IDLE_SECONDS
            else:
                is_over = now - flow.opened >= TENTATIVE_SECONDS
            if is_over:
                over.append(flow)
        for flow in over:
            tables.close_flow(flow)
        self.counters["flows ended"] += len(over)
        sheds = self.quotas.load >= GUEST_LOAD_MAX
        if sheds != self._is_shedding:
            self._is_shedding = sheds
            self.events.append(Shedding(sheds, self.quotas.load))
        self._sweep_at = now + SWEEP_SECONDS if tables.leases else None
