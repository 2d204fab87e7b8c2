"""Limits on what strangers can make this node do: requests a second, bytes to the unproven.

The buckets are kept as the time at which they are full again (the generic cell rate algorithm),
one number for each source that is in debt.  A source without debt needs no entry, so forgetting it
changes nothing, and an entry in debt is never forgotten: there is no eviction to abuse.
"""

from __future__ import annotations

from meshcall.core import Endpoint

SHARED_BUCKETS = 17
"""Buckets that newcomers share while the table of sources is full of debtors."""
SWEEP_AT_LEAST = 16
"""Entries from which on those without debt are looked for."""
FULL_SECONDS = 0.25
"""How long the table counts as full once it was found full of debtors; spares a sweep per datagram."""
PROVEN_SHARE = 0.25
"""Share of the total burst that only proven sources may use."""

AMPLIFICATION_FACTOR = 3
"""An answer longer than this many times its request needs a proven receiver or the budget."""
AMPLIFIED_SUBNET_BYTES_PER_SECOND = 4_000.0
AMPLIFIED_SUBNET_BURST_BYTES = 24_000.0
"""Some 16 answers with a full item: several look-ups of one newcomer within a few seconds."""
AMPLIFIED_TOTAL_BYTES_PER_SECOND = 64_000.0
AMPLIFIED_TOTAL_BURST_BYTES = 256_000.0
AMPLIFIED_SUBNETS_MAX = 4096

PROVEN_MAX = 2048
PROVEN_LIFE_SECONDS = 600.0


class RateLimiter:
    """A token bucket for each source, and one for all together.

    Of any source no more than `rate_per_second * t + burst` is allowed within any t seconds, and of
    all sources no more than `total_per_second * t + total_burst` (without a total: no such bound).

    Many sources cannot wash a limited one clean, because an entry goes only when its debt is paid.
    While `sources_max` sources are in debt at once, newcomers share `SHARED_BUCKETS` buckets, each as
    large as a source's own: they are served less, the known ones not.  With a total limit that
    cannot last: each allowed datagram keeps an entry for 1/rate seconds, hence at most about
    `total_burst + total_per_second / rate_per_second` are in debt at any time.
    """

    __slots__ = (
        "_burst",
        "_full_again",
        "_full_until",
        "_period",
        "_shared",
        "_sources_max",
        "_sweep_at",
        "_total_again",
        "_total_burst",
        "_total_period",
    )

    def __init__(
        self,
        rate_per_second: float,
        burst: float,
        sources_max: int,
        total_per_second: float | None = None,
        total_burst: float = 0.0,
    ) -> None:
        self._period = 1.0 / rate_per_second
        self._burst = burst / rate_per_second
        self._sources_max = sources_max
        self._full_again: dict[bytes, float] | None = None
        self._sweep_at = min(SWEEP_AT_LEAST, sources_max)
        self._full_until = 0.0
        self._shared: list[float] | None = None
        self._total_period = 0.0 if total_per_second is None else 1.0 / total_per_second
        self._total_burst = 0.0 if total_per_second is None else total_burst / total_per_second
        self._total_again = 0.0

    def __len__(self) -> int:
        """Sources that are remembered; never more than `sources_max`."""
        return len(self._full_again or ())

    def allow(self, now: float, key: bytes, cost: float = 1.0, proven: bool = False) -> bool:
        """Whether the source `key` may have `cost` now; what is refused costs it nothing.

        `proven`: the source cannot be spoofed.  Only such may use the last quarter of the total,
        so that a flood from made-up addresses leaves room for real neighbours.
        """
        table = self._full_again
        if table is None:
            table = self._full_again = {}
        again = table.get(key, now)
        slot = -1
        if again <= now:
            again = now
            if len(table) >= self._sweep_at and key not in table:
                self._sweep(now, table)
                if len(table) >= self._sources_max:
                    slot = int.from_bytes(key, "big") % SHARED_BUCKETS
                    if self._shared is None:
                        self._shared = [now] * SHARED_BUCKETS
                    again = max(now, self._shared[slot])
        again += cost * self._period
        if again - now > self._burst:
            return False
        if self._total_period:
            total = max(now, self._total_again) + cost * self._total_period
            if total - now > (self._total_burst if proven else self._total_burst * (1.0 - PROVEN_SHARE)):
                return False
            self._total_again = total
        if slot < 0:
            table[key] = again
        elif self._shared is not None:
            self._shared[slot] = again
        return True

    def _sweep(self, now: float, table: dict[bytes, float]) -> None:
        """Forget those without debt.  The next sweep is due when as many have come again, so it costs O(1) each."""
        if now < self._full_until:
            return
        for key in [key for key, again in table.items() if again <= now]:
            del table[key]
        self._sweep_at = min(max(SWEEP_AT_LEAST, 2 * len(table)), self._sources_max)
        if len(table) > self._sources_max * 3 // 4:
            self._full_until = now + FULL_SECONDS


class AmplificationBudget:
    """How many bytes of long answers go to receivers who may not have asked.

    A request with a forged sender turns a node into a weapon if its answer is longer.  So an answer
    of more than `AMPLIFICATION_FACTOR` times its request goes to an unproven endpoint only within
    this budget, counted whole, for each subnet and in total.
    """

    __slots__ = ("_limiter",)

    def __init__(
        self,
        subnet_bytes_per_second: float = AMPLIFIED_SUBNET_BYTES_PER_SECOND,
        subnet_burst_bytes: float = AMPLIFIED_SUBNET_BURST_BYTES,
        total_bytes_per_second: float = AMPLIFIED_TOTAL_BYTES_PER_SECOND,
        total_burst_bytes: float = AMPLIFIED_TOTAL_BURST_BYTES,
        subnets_max: int = AMPLIFIED_SUBNETS_MAX,
    ) -> None:
        self._limiter = RateLimiter(
            subnet_bytes_per_second, subnet_burst_bytes, subnets_max, total_bytes_per_second, total_burst_bytes
        )

    def allow(self, now: float, subnet: bytes, size: int) -> bool:
        """Whether a long answer of `size` bytes may go to this subnet (`node_id.subnet_of`) now."""
        return self._limiter.allow(now, subnet, size, proven=True)


class Proven:
    """Endpoints that really are where they say: they answered us, or used a token we had sent there.

    Bounded: two generations, each of half the size and half the life.  An endpoint is remembered for
    at least half of `life_seconds` and at most all of it, unless more than `endpoints_max / 2` others
    prove themselves meanwhile.
    """

    __slots__ = ("_endpoints_max", "_half_life", "_new", "_old", "_turn")

    def __init__(self, endpoints_max: int = PROVEN_MAX, life_seconds: float = PROVEN_LIFE_SECONDS) -> None:
        self._endpoints_max = endpoints_max
        self._half_life = life_seconds / 2
        # dicts, not sets: they take a third of the memory
        self._new: dict[Endpoint, None] | None = None
        self._old: dict[Endpoint, None] | None = None
        self._turn = 0.0

    def __len__(self) -> int:
        """Entries kept, an endpoint of both generations counted twice; at most `endpoints_max`."""
        return len(self._new or ()) + len(self._old or ())

    def add(self, now: float, endpoint: Endpoint) -> None:
        """Remember that this endpoint has proven itself now."""
        new = self._new
        if new is None or now >= self._turn or len(new) * 2 >= self._endpoints_max:
            new = self._next_generation(now)
        new[endpoint] = None

    def has(self, now: float, endpoint: Endpoint) -> bool:
        """Whether this endpoint has proven itself lately."""
        if self._new is None:
            return False
        if now >= self._turn:
            self._next_generation(now)
        return endpoint in self._new or (self._old is not None and endpoint in self._old)

    def _next_generation(self, now: float) -> dict[Endpoint, None]:
        missed = now - self._turn
        self._old = None if missed >= self._half_life else self._new
        self._new = {}
        self._turn = (self._turn if 0 <= missed < self._half_life else now) + self._half_life
        return self._new
