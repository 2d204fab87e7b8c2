"""How much each lease, each sender and the whole relay may forward: allowances refilled ten times a second.

A forwarded packet is paid for three times: by its lease, by its sender and by the uplink.  Paying is a
comparison and a subtraction, so that the hot path (drivers/relay_hot.py) does it per packet on these
same objects.  While the uplink is over its budget, every lease is held to a fair share of it: a
flood pays, calls do not.
"""

from __future__ import annotations

REFILL_SECONDS = 0.1
ELAPSED_SECONDS_MAX = 1.0
"""A longer pause refills no more than this."""
BURST_SECONDS = 0.25
"""What a lease or sender can save up."""
UPLINK_BURST_SECONDS = 0.5
LOAD_SECONDS = 1.0
"""The load is a moving average over about so long."""
SQUEEZE_BELOW = 0.5
RELAX_ABOVE = 0.9
"""Leases are held to a fair share from when this share of the uplink's burst is left until that is left again."""
PAUSE_SECONDS = 0.15
"""After a longer pause packets may have waited for us, and that is no flood: the uplink may save up what it brought."""
PAUSE_FADES = 4
"""And loses it in four times as long as the pause took, where it is not used."""
SQUEEZED_BUDGET = 0.85
"""Share of the budget that all leases get together meanwhile, so that the uplink recovers."""
SQUEEZED_BURST_SECONDS = 0.1
"""What a lease can save up meanwhile; after a longer pause of the relay, as much as the pause has brought."""
PACKET_OVERHEAD_BYTES = 28
"""IPv4 and UDP headers, counted for every packet."""


class Allowance:
    """What one party may still forward, in bytes.  `left` is read and lowered by whoever forwards."""

    __slots__ = ("before", "burst", "left", "rate", "refused")

    def __init__(self, bytes_per_second: int, burst_seconds: float = BURST_SECONDS) -> None:
        self.rate = bytes_per_second
        self.burst = max(int(bytes_per_second * burst_seconds), 4096)
        self.left = self.burst
        self.before = self.burst
        """What was left right after the last refill."""
        self.refused = 0
        """What it wanted since then and did not get, for whatever reason."""

    def refill(self, gain: int, most: int) -> None:
        """Add to what is left, up to `most`."""
        self.left = self.before = min(self.left + gain, most)

    def cut(self, ceiling: int) -> None:
        """Take away what was saved up beyond `ceiling`."""
        if self.left > ceiling:
            self.left = self.before = ceiling


NO_LIMIT = Allowance(2**62)
"""For whom nobody counts: what a holder sends back is not paid for by the caller's address."""


class Quotas:
    """All allowances of a relay, and how loaded it is."""

    def __init__(self, now: float, bytes_per_second: int, packet_bytes_min: int) -> None:
        self.uplink = Allowance(bytes_per_second, UPLINK_BURST_SECONDS)
        self.packet_bytes_min = packet_bytes_min
        self.load = 0.0
        """Forwarded bytes as a share of the budget, averaged; over 1 where bursts were saved up."""
        self.fair_share: int | None = None
        """Bytes per second that each lease gets while the uplink is over its budget."""
        self._leases: dict[Allowance, None] = {}
        self._sources: dict[Allowance, None] = {}
        self._refilled = now

    def __len__(self) -> int:
        """Allowances beside the uplink's."""
        return len(self._leases) + len(self._sources)

    def cost(self, size: int) -> int:
        """What forwarding a packet of `size` bytes (without IP and UDP headers) costs."""
        return max(size + PACKET_OVERHEAD_BYTES, self.packet_bytes_min)

    def lease(self, bytes_per_second: int) -> Allowance:
        """A new lease's allowance; give it back with `forget`."""
        allowance = Allowance(bytes_per_second)
        self._leases[allowance] = None
        return allowance

    def source(self, bytes_per_second: int) -> Allowance:
        """A new sender's allowance; give it back with `forget`."""
        allowance = Allowance(bytes_per_second)
        self._sources[allowance] = None
        return allowance

    def forget(self, allowance: Allowance) -> None:
        """This lease or sender is gone."""
        self._leases.pop(allowance, None)
        self._sources.pop(allowance, None)

    def pay(self, size: int, lease: Allowance, source: Allowance) -> str:
        """Pay for one packet.  Empty if all could, else the word for who could not; then nobody pays."""
        cost = self.cost(size)
        if lease.left < cost or source.left < cost or self.uplink.left < cost:
            lease.refused += cost
            return "lease" if lease.left < cost else "source" if source.left < cost else "uplink"
        lease.left -= cost
        source.left -= cost
        self.uplink.left -= cost
        return ""

    def refill(self, now: float) -> None:
        """Give everybody what time has brought, if it is time.  To be called before forwarding."""
        elapsed = now - self._refilled
        if elapsed < REFILL_SECONDS:
            return
        self._refilled = now
        gained = min(elapsed, ELAPSED_SECONDS_MAX)
        uplink = self.uplink
        used = uplink.before - uplink.left
        gain = int(uplink.rate * gained)
        most = uplink.burst + (gain if elapsed > PAUSE_SECONDS else 0)
        uplink.refill(gain, max(most, uplink.left - gain // PAUSE_FADES))
        self.load += min(elapsed / LOAD_SECONDS, 1.0) * (used / (uplink.rate * elapsed) - self.load)
        leases = list(self._leases)  # another thread may add some meanwhile
        if uplink.left < uplink.burst * SQUEEZE_BELOW:
            demands = [(lease.before - lease.left + lease.refused) / elapsed for lease in leases]
            self.fair_share = _fair_share(int(uplink.rate * SQUEEZED_BUDGET), demands)
        elif uplink.left > uplink.burst * RELAX_ABOVE:
            self.fair_share = None
        self._refill(leases, gained, self.fair_share)
        self._refill(list(self._sources), gained, None)
        if self.fair_share is not None:
            ceiling = max(int(self.fair_share * max(SQUEEZED_BURST_SECONDS, gained)), self.packet_bytes_min)
            for lease in leases:
                lease.cut(ceiling)

    def _refill(self, allowances: list[Allowance], seconds: float, rate_max: int | None) -> None:
        """Refill them all; most have one rate, and this is done often."""
        rate = gain = 0
        for allowance in allowances:
            if allowance.rate != rate:
                rate = allowance.rate
                gain = int((rate if rate_max is None else min(rate, rate_max)) * seconds)
            left = allowance.left + gain
            most = allowance.burst if allowance.burst > gain else gain
            allowance.left = allowance.before = left if left < most else most
            allowance.refused = 0


def _fair_share(budget: int, demands: list[float]) -> int:
    """The greatest limit with which all demands together keep to the budget (max-min fairness)."""
    left = float(budget)
    demands = sorted(demand for demand in demands if demand > 0)
    for place, demand in enumerate(demands):
        share = left / (len(demands) - place)
        if demand > share:
            return int(share)
        left -= demand
    return budget
