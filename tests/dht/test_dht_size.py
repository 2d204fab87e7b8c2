"""The estimate of the network's size."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.dht.size import LOOKUPS_MAX, LOOKUPS_MIN, SizeEstimate


def closest(ids: list[int], target: int, k: int) -> list[int]:
    return sorted(each ^ target for each in ids)[:k]


@pytest.mark.parametrize("nodes", [100, 1000, 5000])
def test_within_20_percent_of_the_truth(nodes: int) -> None:
    good = 0
    for seed in range(10):
        rng = Random(nodes * 100 + seed)
        ids = [rng.getrandbits(160) for _ in range(nodes)]
        estimate = SizeEstimate()
        for _ in range(LOOKUPS_MAX):
            estimate.add(closest(ids, rng.getrandbits(160), 8), 8)
        assert estimate.nodes is not None
        # ourselves included
        assert estimate.nodes == pytest.approx(nodes + 1, rel=0.4)
        good += estimate.nodes == pytest.approx(nodes + 1, rel=0.2)
    assert good >= 9


def test_a_small_network_is_told_roughly() -> None:
    # twenty IDs are a small sample of the ID space themselves, whatever is made of them
    for seed in range(10):
        rng = Random(seed)
        ids = [rng.getrandbits(160) for _ in range(20)]
        estimate = SizeEstimate()
        for _ in range(LOOKUPS_MAX):
            estimate.add(closest(ids, rng.getrandbits(160), 8), 8)
        assert estimate.nodes == pytest.approx(21, rel=0.5)


def test_no_estimate_before_enough_lookups() -> None:
    estimate = SizeEstimate()
    assert estimate.nodes is None
    assert estimate.expected_distance(8) is None
    for number in range(LOOKUPS_MIN):
        assert estimate.nodes is None
        estimate.add([2**150 * (number + 1)], 1)
    assert estimate.nodes is not None


def test_a_network_smaller_than_k_is_counted() -> None:
    estimate = SizeEstimate()
    for seed in range(5):
        estimate.add([seed + 1, seed + 2, seed + 3], 8)
    assert estimate.nodes == 4.0
    assert estimate.expected_distance(8) == 2**160 - 1


def test_crowds_and_failures_at_a_third_of_the_targets_do_not_move_it_far() -> None:
    rng = Random(5)
    ids = [rng.getrandbits(160) for _ in range(1000)]
    for bad in ([n + 1 for n in range(8)], [2**159 + n for n in range(8)]):
        estimate = SizeEstimate()
        for number in range(LOOKUPS_MAX):
            distances = closest(ids, rng.getrandbits(160), 8)
            estimate.add([each + number for each in bad] if number % 3 == 0 else distances, 8)
        assert estimate.nodes == pytest.approx(1000, rel=0.4)


def test_looking_up_one_target_again_and_again_counts_once() -> None:
    rng = Random(6)
    ids = [rng.getrandbits(160) for _ in range(1000)]
    estimate = SizeEstimate()
    for _ in range(20):
        estimate.add(closest(ids, 1234, 8), 8)
    assert estimate.nodes is None


def test_it_follows_the_network() -> None:
    rng = Random(7)
    estimate = SizeEstimate()
    for nodes in (2000, 200):
        ids = [rng.getrandbits(160) for _ in range(nodes)]
        for _ in range(LOOKUPS_MAX):
            estimate.add(closest(ids, rng.getrandbits(160), 8), 8)
        assert estimate.nodes == pytest.approx(nodes, rel=0.25)
    estimate.reset()
    assert estimate.nodes is None


def test_the_expected_distance_holds_k_nodes_on_average() -> None:
    rng = Random(8)
    ids = [rng.getrandbits(160) for _ in range(2000)]
    estimate = SizeEstimate()
    for _ in range(LOOKUPS_MAX):
        estimate.add(closest(ids, rng.getrandbits(160), 8), 8)
    reach = estimate.expected_distance(8)
    assert reach is not None
    within = 0
    for _ in range(200):
        target = rng.getrandbits(160)
        within += sum(each ^ target <= reach for each in ids)
    assert 6.0 <= within / 200 <= 10.0


def test_nothing_and_nonsense_are_borne() -> None:
    estimate = SizeEstimate()
    estimate.add([], 8)
    estimate.add([0], 1)
    for number in range(LOOKUPS_MIN):
        estimate.add([number], 1)
    assert estimate.nodes is not None
