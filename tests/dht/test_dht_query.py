"""One look-up, without time and bytes: whom it asks, whom it steps over, and when it is over."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.node_id import is_global, subnet_of
from meshcall.dht.query import (
    ANSWERED,
    ASKED,
    CANDIDATES_MAX,
    FAILED,
    NEW,
    PARALLEL,
    SLOW,
    SPARES_MAX,
    SUBNET_ANSWERS_MAX,
    WINDOW_MAX,
    Candidate,
    Query,
)

K = 8
Contact = tuple[bytes, Endpoint]


def at(distance: int, host: str | None = None) -> Contact:
    """A node at this distance from target 0."""
    where = host or f"10.{distance >> 16 & 255}.{distance >> 8 & 255}.{distance & 255}"
    return distance.to_bytes(20, "big"), endpoint(where, 6881)


def answer(query: Query, candidate: Candidate, names: list[Contact] | None = None) -> None:
    query.answered(candidate, candidate.node_id or bytes(20), b"token")
    query.add(names or [], candidate.hops + 1, not is_global(candidate.endpoint[:-2]))


def distances(candidates: list[Candidate]) -> list[int]:
    return [candidate.distance for candidate in candidates]


class Walk:
    """A look-up in a network that stands still: what each node knows, who is dead, who is slow."""

    def __init__(self, rng: Random, knows: dict[Endpoint, list[Contact]], dead: set[Endpoint], slow: set[Endpoint]):
        self.rng = rng
        self.knows = knows
        self.dead = dead
        self.slow = slow
        self.query = Query(0, K)
        self.asked: list[Endpoint] = []

    def run(self, start: list[Contact]) -> list[Candidate]:
        query, rng = self.query, self.rng
        query.add(start, 1, True)
        under_way: list[tuple[Candidate, str]] = []
        for _ in range(2000):
            for candidate in query.take():
                assert candidate.endpoint not in self.asked
                self.asked.append(candidate.endpoint)
                candidate.tries += 1
                where = candidate.endpoint
                late = where in self.dead or where in self.slow
                under_way.append((candidate, "slow" if late else "answer"))
            assert len(query.candidates) <= CANDIDATES_MAX
            assert [c.distance for c in query.candidates] == sorted(c.distance for c in query.candidates)
            self.check_finished()
            if query.finished:
                break
            candidate, what = under_way.pop(rng.randrange(len(under_way)))
            if what == "slow":
                candidate.state = SLOW
                under_way.append((candidate, "fail" if candidate.endpoint in self.dead else "answer"))
            elif what == "fail":
                if candidate.state == SLOW:
                    candidate.state = FAILED
            else:
                names = sorted(self.knows[candidate.endpoint], key=lambda each: each[0])[:K]
                answer(query, candidate, names)
        else:
            raise AssertionError("the look-up does not end")
        return query.result()

    def check_finished(self) -> None:
        """It is over exactly if the first k that are not silent have all answered."""
        not_silent = [c for c in self.query.candidates if c.state < SLOW][:K]
        all_answered = all(c.state == ANSWERED for c in not_silent)
        waits_for_slow = any(c.state == SLOW for c in self.query.candidates) and self.query.answers < K
        assert self.query.finished == (all_answered and not waits_for_slow)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, CANDIDATES_MAX), st.floats(0, 0.9), st.floats(0, 0.5))
def test_where_all_know_all_the_result_is_exact(seed: int, count: int, dying: float, slowing: float) -> None:
    """Whatever the order of answers: the k closest that answer at all, or did before it was over."""
    rng = Random(seed)
    nodes = [at(rng.randrange(1, 2**24)) for _ in range(count)]
    everybody = sorted(set(nodes))
    dead = {where for _, where in everybody if rng.random() < dying}
    slow = {where for _, where in everybody if rng.random() < slowing} - dead
    walk = Walk(rng, {where: everybody for _, where in everybody}, dead, slow)
    # They are told all at once, as each answer names only the k nearest and those may all be dead.
    result = walk.run(everybody)
    alive = [node for node in everybody if node[1] not in dead]
    if not slow:
        assert [(c.node_id, c.endpoint) for c in result] == alive[:K]
    prompt = [node for node in alive if node[1] not in slow]
    assert {where for _, where in prompt[:K]} <= {c.endpoint for c in result} or len(result) == K
    if len(result) == K:
        missed = [node for node in alive if node[0] < (result[-1].node_id or b"") and node[1] in walk.asked]
        answered = {c.endpoint for c in result}
        assert all(where in slow for _, where in missed if where not in answered)
    else:
        assert len(result) == len(alive)


def kademlia(seed: int, count: int, dying: float, slowing: float) -> tuple[Walk, list[Candidate], list[Contact]]:
    """A look-up where each node knows its own neighbourhood and some of the rest; its result, and who lives."""
    rng = Random(seed)
    everybody = sorted({at(rng.randrange(1, 2**24)) for _ in range(count)})
    places = [where for _, where in everybody]
    dead = {where for where in places if rng.random() < dying}
    slow = {where for where in places if rng.random() < slowing} - dead
    knows = {}
    for node_id, where in everybody:
        own = int.from_bytes(node_id, "big")
        near = sorted(everybody, key=lambda each: int.from_bytes(each[0], "big") ^ own)[1 : 2 * K + 1]
        knows[where] = near + rng.sample(everybody, min(len(everybody), 20))
    walk = Walk(rng, knows, dead, slow)
    result = walk.run(rng.sample(everybody, min(len(everybody), 2 * K)))
    return walk, result, [node for node in everybody if node[1] not in dead]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 200), st.floats(0, 0.9), st.floats(0, 0.5))
def test_nobody_closer_than_the_result_is_left_unasked(seed: int, count: int, dying: float, slowing: float) -> None:
    walk, result, _ = kademlia(seed, count, dying, slowing)
    for candidate in walk.query.candidates:
        if len(result) < K or candidate.distance < result[-1].distance:
            assert candidate.state >= ANSWERED


@pytest.mark.parametrize(("dying", "slowing", "share"), [(0.0, 0.0, 0.99), (0.0, 0.2, 0.85), (0.3, 0.0, 0.93)])
def test_in_a_kademlia_network_the_closest_that_answer_are_found(dying: float, slowing: float, share: float) -> None:
    found = 0
    for seed in range(40):
        _, result, living = kademlia(seed, 200, dying, slowing)
        found += len({c.endpoint for c in result} & {where for _, where in living[:K]})
    assert found >= share * 40 * K


def test_the_first_are_asked_a_few_at_a_time() -> None:
    query = Query(0, K)
    query.add([at(1000 + number) for number in range(20)], 1, True)
    first = query.take()
    assert distances(first) == [1000 + number for number in range(PARALLEL)]
    assert query.take() == []
    answer(query, first[0], [at(number) for number in range(1, 9)])
    assert distances(query.take()) == [1, 2, 3, 4, 5][: len(query.take()) + PARALLEL]


def test_those_that_are_near_are_asked_all_at_once() -> None:
    query = Query(0, K, near=50)
    query.add([at(number) for number in range(1, 20)], 1, True)
    assert distances(query.take()) == list(range(1, K + 1))


def test_nobody_beyond_the_window_is_asked_while_nobody_is_silent() -> None:
    query = Query(0, K, near=2**100)
    query.add([at(number) for number in range(1, 40)], 1, True)
    chosen = query.take()
    assert len(chosen) == K
    for candidate in chosen:
        assert query.take() == []
        answer(query, candidate)
    assert query.take() == []
    assert query.finished
    assert distances(query.result()) == list(range(1, K + 1))


def test_a_silent_one_is_replaced_at_once_and_counts_again_if_it_answers() -> None:
    query = Query(0, K, near=2**100)
    query.add([at(number) for number in range(1, 40)], 1, True)
    chosen = query.take()
    late = chosen[0]
    late.state = SLOW
    replacement = query.take()
    assert distances(replacement) == [K + 1]
    for candidate in chosen[1:]:
        answer(query, candidate)
    assert query.take() == []
    assert not query.finished
    answer(query, late)
    assert query.take() == []
    assert query.finished  # the replacement is no longer among the first k
    assert distances(query.result()) == list(range(1, K + 1))


def test_where_many_are_silent_more_are_asked_ahead_but_not_too_many() -> None:
    query = Query(0, K, near=2**100)
    query.add([at(number) for number in range(1, CANDIDATES_MAX + 1)], 1, True)
    chosen = query.take()
    for candidate in chosen[:6]:
        candidate.state = FAILED
    more = query.take()
    assert 6 < len(more) <= 6 + SPARES_MAX
    for candidate in more:
        candidate.state = FAILED
    again = query.take()
    assert len(again) <= len(more) + SPARES_MAX
    assert all(c.state == ASKED for c in again)


def test_while_too_few_have_answered_the_slow_are_waited_for() -> None:
    query = Query(0, K)
    query.add([at(1), at(2)], 1, True)
    first, second = query.take()
    first.state = SLOW
    answer(query, second)
    assert query.take() == []
    assert not query.finished
    first.state = FAILED
    query.take()
    assert query.finished
    assert distances(query.result()) == [2]


def test_an_empty_look_up_is_over_at_once() -> None:
    query = Query(0, K)
    assert query.take() == []
    assert query.finished
    assert query.result() == []


# Reach


def test_everybody_within_reach_belongs_to_the_result_up_to_the_bound() -> None:
    for within, expected in ((4, K), (12, 12), (40, WINDOW_MAX)):
        query = Query(0, K, near=2**100, reach=within)
        query.add([at(number) for number in range(1, 41)], 1, True)
        while not query.finished:
            for candidate in query.take():
                answer(query, candidate)
        assert distances(query.result()) == list(range(1, expected + 1))


def test_the_dead_within_reach_do_not_hold_it_up() -> None:
    query = Query(0, K, near=2**100, reach=20)
    query.add([at(number) for number in range(1, 41)], 1, True)
    while not query.finished:
        for candidate in query.take():
            if candidate.distance % 2:
                candidate.state = FAILED
            else:
                answer(query, candidate)
    result = distances(query.result())
    assert result[:10] == list(range(2, 21, 2))
    assert len(result) == 10


# Who may become a candidate


def test_candidates_are_bounded_and_the_nearest_count() -> None:
    query, rng = Query(0, K), Random(2)
    numbers = rng.sample(range(1, 2**24), 2000)
    for number in numbers:
        query.add([at(number)], 1, True)
        assert len(query.candidates) <= CANDIDATES_MAX
    assert distances(query.candidates) == sorted(numbers)[:CANDIDATES_MAX]


def test_a_contact_is_taken_once() -> None:
    query = Query(0, K)
    query.add([at(1), at(1), (bytes(20), at(1)[1])], 1, True)
    query.add([at(1)], 2, True)
    assert len(query.candidates) == 1
    assert query.candidates[0].hops == 1
    assert query.seed(at(1)[1]) is None


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.0.1", "127.0.0.1", "100.64.0.1", "fd00::1", "::1"])
def test_a_public_node_does_not_send_us_to_private_addresses(host: str) -> None:
    query = Query(0, K)
    query.add([at(1, host)], 1, False)
    assert query.candidates == []
    query.add([at(1, host)], 1, True)
    assert len(query.candidates) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1"])
def test_nobody_sends_us_to_addresses_that_are_none(host: str) -> None:
    query = Query(0, K)
    query.add([at(1, host), (bytes(20), Endpoint(bytes([45, 1, 1, 1, 0, 0])))], 1, True)
    assert query.candidates == []


def test_of_one_public_subnet_only_the_nearest_two_count() -> None:
    """In whatever order they answer, and invented neighbours that never answer take nobody's place."""
    crowd = [at(number, f"45.1.2.{number}") for number in range(1, 31)]
    others = [at(100 + number, f"45.{number}.9.9") for number in range(10, 20)]
    for seed in range(20):
        rng = Random(seed)
        query = Query(0, K, near=2**100)
        query.add(crowd + others, 1, False)
        under_way: list[Candidate] = []
        while not query.finished:
            under_way += query.take()
            if query.finished:
                break
            candidate = under_way.pop(rng.randrange(len(under_way)))
            if candidate.distance in (1, 2, 3):
                candidate.state = FAILED  # invented
            else:
                answer(query, candidate)
        result = query.result()
        subnets = [subnet_of(candidate.endpoint) for candidate in result]
        assert all(subnets.count(subnet) <= SUBNET_ANSWERS_MAX for subnet in subnets)
        assert distances(result)[:3] == [4, 5, 110]
        assert len(result) == K


def test_private_networks_have_no_such_limit() -> None:
    query = Query(0, K, near=2**100)
    query.add([at(number, f"192.168.1.{number}") for number in range(1, 9)], 1, True)
    while not query.finished:
        for candidate in query.take():
            answer(query, candidate)
    assert len(query.result()) == K


# Addresses without an ID, other IDs, silent ones


def test_a_bootstrap_address_comes_first_and_takes_its_place_when_it_tells_its_id() -> None:
    query = Query(0, K)
    query.add([at(5), at(6)], 1, True)
    seed = query.seed(endpoint("10.9.9.9", 1))
    assert seed is not None
    assert query.take()[0] is seed
    assert query.answered(seed, (1000).to_bytes(20, "big"), b"") == ""
    assert distances(query.candidates) == [5, 6, 1000]


def test_many_bootstrap_addresses_with_far_ids_break_nothing() -> None:
    query = Query(0, K)
    seeds = [query.seed(endpoint(f"10.9.9.{number}", 1)) for number in range(1, 9)]
    taken = query.take()
    query.add([at(number) for number in range(1, 100)], 1, True)
    for number, seed in enumerate(seeds):
        assert seed is not None
        query.answered(seed, (2**100 + number).to_bytes(20, "big"), b"")
        query.answered(seed, (2**100 + number).to_bytes(20, "big"), b"")
        query.take()
    assert set(taken) <= {seed for seed in seeds if seed is not None}
    assert len(query.candidates) <= CANDIDATES_MAX


def test_who_answers_under_another_id_has_failed() -> None:
    query = Query(0, K)
    query.add([at(5)], 1, True)
    (candidate,) = query.take()
    assert query.answered(candidate, (7).to_bytes(20, "big"), b"t") == "another id"
    assert candidate.state == FAILED
    query.take()
    assert query.finished
    assert query.result() == []


def test_those_silent_a_moment_ago_are_passed_over_unless_hardly_anybody_else_is_left() -> None:
    silent = {at(number)[1] for number in range(1, 20)}
    query = Query(0, K, near=2**100)
    query.add([at(number) for number in range(1, 40)], 1, True, silent)
    asked = []
    while not query.finished:
        for candidate in query.take():
            candidate.tries += 1
            asked.append(candidate.distance)
            answer(query, candidate)
    assert not {number for number in asked if number < 20}
    assert distances(query.result()) == list(range(20, 20 + K))
    query = Query(0, K, near=2**100)
    query.add([at(number) for number in range(1, 20)], 1, True, silent)
    first = query.take()
    assert distances(first) == list(range(1, K + 1))
    assert not query.finished


def test_a_look_up_that_runs_out_can_be_widened_once() -> None:
    query = Query(0, K, near=2**100)
    query.add([at(number) for number in range(1, 5)], 1, True)
    for candidate in query.take():
        candidate.tries += 1
        candidate.state = FAILED
    query.take()
    assert query.finished
    assert query.may_be_widened
    query.widen([at(number) for number in range(1, 30)], ())
    assert distances(query.take())[:K] == list(range(5, 5 + K))
    assert not query.may_be_widened
    assert all(c.state in (NEW, ASKED, FAILED) for c in query.candidates)
