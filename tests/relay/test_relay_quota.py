"""Quotas in time: a relay that was kept waiting finds a heap of packets, and that is no flood."""

from __future__ import annotations

import pytest

from meshcall.relay.quota import NO_LIMIT, PACKET_OVERHEAD_BYTES, Quotas

PACKET_BYTES = 132
COST = PACKET_BYTES + PACKET_OVERHEAD_BYTES
CALLS = 50
RATE = 100
"""Packets a second of a call, both ways."""
BUDGET = int(CALLS * RATE * COST / 0.65)


@pytest.mark.parametrize("stall", [0.15, 0.4, 0.6])
def test_a_relay_that_is_stopped_once_a_second_refuses_no_call(stall: float) -> None:
    quotas = Quotas(0.0, BUDGET, 100)
    leases = [quotas.lease(80_000) for _ in range(CALLS)]
    now, due = 0.0, 0.0
    for second in range(10):
        for step in (stall, *[0.01] * round((1 - stall) / 0.01)):
            now += step
            due += step * RATE
            for _ in range(int(due)):
                for lease in leases:
                    quotas.refill(now)
                    assert not quotas.pay(PACKET_BYTES, lease, NO_LIMIT), f"refused in second {second}"
            due -= int(due)
        assert quotas.fair_share is None


def test_a_flood_is_squeezed_soon_and_calls_go_on_even_with_stalls() -> None:
    quotas = Quotas(0.0, BUDGET, 100)
    calls = [quotas.lease(80_000) for _ in range(CALLS // 2)]
    floods = [quotas.lease(80_000) for _ in range(CALLS // 2)]
    now, refused, passed, asked = 0.0, 0, 0, 0
    for second in range(10):
        for step in (0.2, *[0.01] * 80):
            now += step
            count = round(step * RATE)
            for _ in range(count):
                for flood in floods:
                    for _ in range(6):  # 96,000 bytes/s of each: three times the budget together
                        quotas.refill(now)
                        passed += not quotas.pay(PACKET_BYTES, flood, NO_LIMIT)
                for call in calls:
                    asked += second >= 1
                    refused += bool(quotas.pay(PACKET_BYTES, call, NO_LIMIT)) and second >= 1
    assert quotas.fair_share is not None
    assert refused <= 0.01 * asked
    assert passed * COST <= 11 * BUDGET


def test_after_a_long_pause_no_more_is_there_than_a_second_brought() -> None:
    quotas = Quotas(0.0, 100_000, 100)
    quotas.refill(1000.0)
    assert quotas.uplink.left == quotas.uplink.burst + 100_000
    lease = quotas.lease(10_000)
    quotas.refill(2000.0)
    assert lease.left == 10_000
    for step in range(1, 50):
        quotas.refill(2000.0 + 0.101 * step)
    assert quotas.uplink.left == quotas.uplink.burst == 50_000, "what is not used fades"
