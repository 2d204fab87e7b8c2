"""Two publishers of one person under everything that may happen to them; then they must agree."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshcall.record.publisher import CLOCK_CHECK_SECONDS
from tests.record.record_world import START, SUITE, World, device, lease


class Publishers(RuleBasedStateMachine):
    """Two devices of one person under anything that happens to them; then the faults stop and they must agree."""

    @initialize(
        hour=st.sampled_from([0.01, 1.9, 12, 20.9, 23.9]),
        seed=st.integers(0, 1000),
        errors=st.tuples(*[st.sampled_from([-1800.0, -1.0, 0.0, 2.0, 1800.0])] * 2),
    )
    def begin(self, hour, seed, errors):
        self.world = World(START + hour * 3600, seed)
        self.peers = [self.world.peer(serial, error) for serial, error in zip((1, 2), errors, strict=True)]
        for peer in self.peers:
            peer.publish(peer.entry)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0, 15.0, 100.0, 1000.0, 3500.0, 9000.0]))
    def time_passes(self, seconds):
        self.world.run(seconds)

    @rule(which=st.integers(0, 1), capabilities=st.integers(0, 3), leases=st.integers(0, 4))
    def change(self, which, capabilities, leases):
        peer = self.peers[which]
        entry = device(which + 1)
        ways = tuple(lease(number + 1) for number in range(leases))
        peer.publish(replace(entry, capabilities=capabilities, leases=ways))

    @rule(which=st.integers(0, 1))
    def withdraw(self, which):
        self.peers[which].publish(None)

    @rule(loss=st.sampled_from([0.0, 0.3, 0.8]), down=st.booleans(), swallow=st.booleans())
    def weather(self, loss, down, swallow):
        self.world.dht.loss = loss
        self.world.dht.down = down
        self.world.swallow = swallow

    @rule(node=st.integers(0, 7))
    def node_forgets(self, node):
        self.world.dht.stores[node].clear()

    @rule(which=st.integers(0, 1), step=st.sampled_from([-90_000.0, -4000.0, -40.0, 40.0, 4000.0, 90_000.0]))
    @precondition(lambda self: all(abs(peer.clock_error) < 80_000 for peer in self.peers))
    def clock_is_set(self, which, step):
        self.peers[which].clock_error += step

    @rule(which=st.integers(0, 1))
    def network_changes(self, which):
        peer = self.peers[which]
        peer.publisher.publish_now(self.world.now, peer.unix_time)
        peer.drain()

    @invariant()
    def bounded(self):
        for peer in getattr(self, "peers", ()):
            publisher = peer.publisher
            assert len(publisher.status(self.world.now, peer.unix_time).periods) <= 2
            due = publisher.next_wake()
            assert due is None or due <= self.world.now + CLOCK_CHECK_SECONDS
            if peer.entry:
                assert due is not None

    def found(self):
        record = self.world.newest()
        return {entry.serial: replace(entry, time=0) for entry in record.devices} if record else {}

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.weather(0.0, False, False)
        for peer in self.peers:
            peer.clock_error = max(-1800.0, min(1800.0, peer.clock_error))
        before = len(self.world.dht.puts)
        wanted = {peer.entry.serial: replace(peer.entry, time=0) for peer in self.peers if peer.entry}
        self.world.run(3600)
        assert self.found().items() >= wanted.items()
        self.world.run(4 * 3600)  # what was withdrawn while clocks were wrong has to run out
        assert self.found() == wanted
        assert all(peer.publisher.up_to_date for peer in self.peers)
        assert len(self.world.dht.puts) - before < 80
        seqs: dict[tuple[bytes, int], bytes] = {}
        for _, item in self.world.dht.puts:
            assert SUITE.verify(item.public, b"3:seqi%de1:v%s" % (item.seq, item.value), item.signature)
            seqs[item.public, item.seq] = item.value


TestPublishers = Publishers.TestCase
TestPublishers.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
