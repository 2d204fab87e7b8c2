"""What the others see as our address, put to the vote."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.observed import (
    AGREE_LOCAL_MIN,
    AGREE_MIN,
    VOTE_LIFE_SECONDS,
    VOTE_REFRESH_SECONDS,
    VOTES_MAX,
    Observed,
)

TRUTH = endpoint("198.51.100.5", 6881)
LIE = endpoint("203.0.113.66", 6666)


def verdict(observed: Observed) -> Endpoint | None:
    return observed.outside


def observer(number: int) -> Endpoint:
    return endpoint(f"9.{number >> 8 & 255}.{number & 255}.1", 6881)


def test_three_subnets_that_agree_make_a_verdict() -> None:
    observed = Observed()
    assert not observed.vote(0.0, observer(1), TRUTH)
    assert not observed.vote(1.0, observer(2), TRUTH)
    assert verdict(observed) is None
    assert observed.mapping() == "unknown"
    assert observed.vote(2.0, observer(3), TRUTH)
    assert verdict(observed) == TRUTH
    assert observed.address == TRUTH[:-2]
    assert observed.mapping() == "consistent"
    assert not observed.vote(3.0, observer(4), TRUTH)


def test_many_liars_in_one_subnet_are_one_liar() -> None:
    observed = Observed()
    for number in range(1000):
        observed.vote(number / 100, endpoint(f"203.0.113.{number % 250 + 1}", 1000 + number), LIE)
    assert verdict(observed) is None
    for number in range(3):
        observed.vote(10.0, observer(number), TRUTH)
    assert verdict(observed) == TRUTH
    for number in range(1000):
        assert not observed.vote(11.0 + number, endpoint(f"203.0.113.{number % 250 + 1}", 1000 + number), LIE)
    assert verdict(observed) == TRUTH


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_liars_in_half_the_window_never_win(seed: int) -> None:
    rng = Random(seed)
    observed = Observed()
    for number in range(VOTES_MAX):
        observed.vote(float(number), observer(number), TRUTH)
    liars = rng.sample(range(100), VOTES_MAX // 2)
    for step in range(200):
        who = rng.choice(liars) if rng.random() < 0.5 else rng.randrange(100)
        observed.vote(VOTES_MAX + step * 2.0, observer(who), LIE if who in liars else TRUTH)
        assert verdict(observed) != LIE


def test_a_new_address_wins_when_a_majority_sees_it() -> None:
    observed = Observed()
    for number in range(40):
        observed.vote(float(number), observer(number), TRUTH)
    changes = 0
    for number in range(40, 40 + VOTES_MAX // 2 + 1):
        changes += observed.vote(float(number), observer(number), LIE)
    assert verdict(observed) == LIE
    assert changes >= 1


def test_a_port_for_each_observer_is_a_mapping_per_destination() -> None:
    observed = Observed()
    for number in range(6):
        observed.vote(0.0, observer(number), endpoint("198.51.100.5", 7000 + number))
    assert verdict(observed) is None
    assert observed.address == TRUTH[:-2]
    assert observed.mapping() == "per destination"
    assert observed.mapping([TRUTH]) == "per destination"


def test_a_renewed_mapping_is_not_taken_for_one_per_destination() -> None:
    observed = Observed()
    for number in range(VOTES_MAX):
        observed.vote(0.0, observer(number), TRUTH)
    for number in range(VOTES_MAX, 2 * VOTES_MAX):
        observed.vote(100.0, observer(number), endpoint("198.51.100.5", 7777))
        assert observed.mapping() != "per destination"
        assert observed.address == TRUTH[:-2]
    assert verdict(observed) == endpoint("198.51.100.5", 7777)


def test_no_translation_where_the_outside_address_is_our_own() -> None:
    observed = Observed()
    for number in range(3):
        observed.vote(0.0, observer(number), TRUTH)
    assert observed.mapping([endpoint("10.0.0.2", 6881), TRUTH]) == "none"
    assert observed.mapping([endpoint("10.0.0.2", 6881)]) == "consistent"


def test_a_private_network_counts_addresses() -> None:
    observed = Observed()
    mine = endpoint("192.168.1.5", 6881)
    observed.vote(0.0, endpoint("192.168.1.6", 6881), mine)
    assert observed.vote(0.0, endpoint("192.168.1.7", 6881), mine)
    assert verdict(observed) == mine
    loopback = Observed()
    for port in (1, 2, 3):
        loopback.vote(0.0, endpoint("127.0.0.1", port), endpoint("127.0.0.1", 6881))
    assert loopback.outside == endpoint("127.0.0.1", 6881)
    assert loopback.mapping([endpoint("127.0.0.1", 6881)]) == "none"


def test_what_local_neighbours_see_gives_way_to_what_the_world_sees() -> None:
    observed = Observed()
    for number in range(2, 10):
        observed.vote(0.0, endpoint(f"192.168.1.{number}", 6881), endpoint("192.168.1.77", 6881))
    for number in range(AGREE_MIN):
        observed.vote(0.0, observer(number), TRUTH)
    assert verdict(observed) == TRUTH


def test_votes_that_cannot_be_true_do_not_count() -> None:
    observed = Observed()
    for number in range(5):
        assert not observed.vote(0.0, observer(number), endpoint("192.168.1.77", 6881))
        assert not observed.vote(0.0, observer(number), endpoint("2001:db8::1", 6881))
        assert not observed.vote(0.0, observer(number), Endpoint(bytes((198, 51, 100, 5, 0, 0))))
        assert not observed.vote(0.0, observer(number), Endpoint(b"x"))
        assert not observed.vote(0.0, observer(number), endpoint("239.1.1.1", 5))
    assert observed.address is None


def test_votes_grow_old() -> None:
    observed = Observed()
    for number in range(3):
        observed.vote(0.0, observer(number), TRUTH)
    assert not observed.expire(VOTE_LIFE_SECONDS - 1)
    assert observed.expire(VOTE_LIFE_SECONDS)
    assert verdict(observed) is None
    assert observed.address is None


def test_reset_forgets() -> None:
    observed = Observed()
    for number in range(3):
        observed.vote(0.0, observer(number), TRUTH)
    observed.reset()
    assert verdict(observed) is None
    assert observed.mapping() == "unknown"
    observed.vote(0.0, observer(1), LIE)
    assert verdict(observed) is None


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20), st.floats(0, 4000)), max_size=60))
def test_no_vote_raises(votes: list[tuple[bytes, bytes, float]]) -> None:
    observed = Observed()
    now = 0.0
    for where, seen, wait in votes:
        now += wait
        observer_endpoint = Endpoint(where if len(where) in (6, 18) else bytes((9, 9, 9, 9, 9, 9)))
        observed.vote(now, observer_endpoint, Endpoint(seen))


@given(
    st.lists(
        st.tuples(st.integers(0, 25), st.sampled_from([TRUTH, LIE, endpoint("198.51.100.5", 9)]), st.booleans()),
        max_size=28,  # none of them grows old
    )
)
def test_the_verdict_is_always_what_a_full_count_says(votes: list[tuple[int, Endpoint, bool]]) -> None:
    observed = Observed()
    model: dict[Endpoint, Endpoint] = {}
    for step, (who, seen, is_near) in enumerate(votes):
        voter = endpoint(f"192.168.7.{who + 1}", 1) if is_near else observer(who)
        before = (observed.outside, observed.address)
        changed = observed.vote(step * (VOTE_REFRESH_SECONDS + 1), voter, seen)
        model.pop(voter, None)
        model[voter] = seen
        model = dict(list(model.items())[-VOTES_MAX:])
        world = [each for voter, each in model.items() if voter[0] == 9] or list(model.values())
        enough = max(AGREE_MIN if any(voter[0] == 9 for voter in model) else AGREE_LOCAL_MIN, len(world) // 2 + 1)
        assert observed.outside == next((each for each in world if world.count(each) >= enough), None)
        hosts = [each[:-2] for each in world]
        assert observed.address == next((each for each in hosts if hosts.count(each) >= enough), None)
        assert changed or before == (observed.outside, observed.address)
