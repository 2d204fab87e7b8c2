"""Relays announce themselves and are found; what strangers put there costs little."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.events import PeersFinished, PeersFound, PutFinished, Report
from meshcall.relay import discovery
from meshcall.relay.discovery import Announcer, FindPeers, RelaySearch, info_hash, shard_of
from meshcall.wire import relay as wire
from tests.relay.relay_world import key

NOTHING = Report(0.0, 0, 0, 0)


class SearchWorld:
    """A search in virtual time; relays answer after half a round trip each way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.search = RelaySearch(rng=random.Random(3))
        self.relays: dict[Endpoint, tuple[float, wire.RelayInfo]] = {}
        self.peers: list[Endpoint] = []
        self.hellos: list[Endpoint] = []
        self._answers: list[tuple[float, Endpoint, bytes]] = []

    def add(self, number: int, host: str, round_trip: float, **changes: object) -> None:
        info = {"static": key(number), "is_open": True, "accepts": True, "load_percent": 0, "tcp_port": None, **changes}
        where = endpoint(host, 1000 + number)
        self.relays[where] = round_trip, wire.RelayInfo(**info)  # type: ignore[arg-type]
        self.peers.append(where)

    def run(self) -> discovery.SearchFinished:
        self.search.search(self.now)
        requests, self.search.requests = self.search.requests, []
        assert len({request.info_hash for request in requests}) == discovery.SHARDS_SAMPLED
        for request in requests:
            assert isinstance(request, FindPeers)
            self.search.answered(self.now, request.tag, PeersFound(1, tuple(self.peers[:4])))
            finished = PeersFinished(1, tuple(self.peers), (), NOTHING)
            self.search.answered(self.now, request.tag, finished)
        while not self.search.events:
            due = [self.search.next_wake(), *(when for when, _, _ in self._answers)]
            self.now = max(self.now, min(when for when in due if when is not None))
            for entry in [entry for entry in self._answers if entry[0] <= self.now]:
                self._answers.remove(entry)
                self.search.receive(self.now, entry[1], entry[2])
            self.search.wake(self.now)
            for to, data in self.search.outbox:
                self.hellos.append(to)
                if to in self.relays:
                    round_trip, info = self.relays[to]
                    answer = wire.hello_answer(wire.decode_frame(data).frame_id, info)
                    self._answers.append((self.now + round_trip, to, answer))
            self.search.outbox.clear()
            assert self.now < 60
        assert not self.search.is_searching
        assert self.search.next_wake() is None
        return self.search.events.pop()


def test_the_near_relay_comes_first_with_its_round_trip() -> None:
    world = SearchWorld()
    world.add(1, "192.0.2.1", 0.2)
    world.add(2, "198.51.100.1", 0.05, tcp_port=443)
    world.add(3, "203.0.113.1", 0.01, is_open=False)
    world.add(4, "203.0.114.1", 0.01, accepts=False)
    world.add(5, "203.0.115.1", 0.05, load_percent=70)
    found = world.run()
    assert [each.static for each in found.candidates] == [key(2), key(5), key(1)]
    assert abs(found.candidates[0].round_trip - 0.05) < 1e-6
    assert found.candidates[0].tcp_port == 443
    assert world.now < 1.0


def test_addresses_that_strangers_announced_get_two_small_packets_at_most() -> None:
    world = SearchWorld()
    world.peers = [endpoint(f"10.{number}.0.1", 6881) for number in range(200)]
    found = world.run()
    assert found.candidates == ()
    assert found.asked == discovery.PROBED_MAX
    assert len(world.hellos) <= 2 * discovery.PROBED_MAX
    assert world.now < discovery.SEARCH_SECONDS_MAX


def test_a_crowd_in_one_subnet_does_not_fill_the_sample() -> None:
    world = SearchWorld()
    world.peers = [endpoint(f"192.0.2.{number}", 6881) for number in range(1, 200)]
    world.add(1, "198.51.100.1", 0.1)
    found = world.run()
    assert found.asked == discovery.PROBED_PER_SUBNET_MAX + 1
    assert [each.static for each in found.candidates] == [key(1)]


def test_a_search_without_the_dht_ends() -> None:
    search = RelaySearch(rng=random.Random(1))
    search.search(0.0)
    search.wake(discovery.SEARCH_SECONDS_MAX)
    assert search.events[0].candidates == ()
    search.search(100.0)
    assert search.is_searching


@given(st.binary(max_size=80), st.integers(0, 9))
def test_no_bytes_make_a_search_fail(junk: bytes, kind: int) -> None:
    search = RelaySearch(rng=random.Random(1))
    where = endpoint("192.0.2.1", 6881)
    search.search(0.0, [where])
    search.wake(0.1)
    search.receive(0.2, where, junk)
    search.receive(0.2, where, bytes([wire.MAGIC, kind, 0, 0]) + junk)
    search.receive(0.2, where, wire.frame(wire.HELLO_ANSWER, bytes(8), junk[:38].ljust(38, b"\0")))
    search.receive(0.2, endpoint("192.0.2.2", 6881), junk)


def test_a_volunteer_stays_announced_in_its_shard() -> None:
    announcer = Announcer(0.0, static=key(1), rng=random.Random(1))
    announcer.wake(0.0)
    first = announcer.requests.pop()
    assert first.info_hash == info_hash(shard_of(key(1)))
    announcer.answered(1.0, first.tag, PutFinished(1, 0, {}, NOTHING))
    due = announcer.next_wake()
    assert due is not None
    assert due <= 1.0 + discovery.ANNOUNCE_AGAIN_SECONDS
    announcer.wake(due)
    second = announcer.requests.pop()
    announcer.answered(due, first.tag, PutFinished(1, 8, {}, NOTHING))
    announcer.answered(due, second.tag, PutFinished(2, 8, {}, NOTHING))
    soon = announcer.next_wake()
    assert soon is not None
    assert 0.7 * discovery.ANNOUNCE_SECOND_SECONDS < soon - due <= discovery.ANNOUNCE_SECOND_SECONDS
    announcer.wake(soon)
    third = announcer.requests.pop()
    announcer.answered(soon, third.tag, PutFinished(3, 8, {}, NOTHING))
    again = announcer.next_wake()
    assert again is not None
    assert 0.7 * discovery.ANNOUNCE_SECONDS < again - soon <= discovery.ANNOUNCE_SECONDS
    announcer.announce_now(due + 5)
    announcer.wake(due + 5)
    assert len(announcer.requests) == 1


def test_shards_are_well_known_and_evenly_used() -> None:
    hashes = {info_hash(shard) for shard in range(discovery.SHARDS)}
    assert len(hashes) == discovery.SHARDS
    assert all(len(each) == 20 for each in hashes)
    assert {shard_of(key(number)) for number in range(500)} == set(range(discovery.SHARDS))
