"""How many nodes the network has, from how close the closest ones are to the targets of look-ups.

In a network of N nodes with evenly spread IDs, the distance of the k-th closest to a random target
has its median near (k - 1/3) / (N + 1/3) of the ID space.  The median over the last look-ups is
taken, so that neither a failed look-up nor a crowd placed around one target moves the estimate.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

LOOKUPS_MAX = 32
"""Look-ups that count, the newest: a standard error of about 8 per cent for k = 8."""
LOOKUPS_MIN = 2
"""Fewer give no estimate."""

ID_SPACE = 2**160


class SizeEstimate:
    """A running estimate of the number of nodes that answer."""

    __slots__ = ("_next", "_samples")

    def __init__(self) -> None:
        self._samples: array[float] | None = None
        self._next = 0

    def add(self, distances: Sequence[int], k: int) -> None:
        """Take the XOR distances from a look-up's target of the `k` closest nodes that answered it.

        Fewer than `k` mean that the look-up found everybody.  A look-up that no node answered says
        nothing.  The target should be as good as random; one looked up again counts only once.
        """
        found = min(len(distances), k)
        if not found:
            return
        farthest = sorted(distances)[found - 1]
        if found < k:
            sample = float(found)
        else:
            sample = max(float(found), (found - 1 / 3) * ID_SPACE / (farthest + 1) - 1 / 3)
        samples = self._samples
        if samples is None:
            samples = self._samples = array("d")
        if found == k and sample in samples:
            return
        if len(samples) < LOOKUPS_MAX:
            samples.append(sample)
        else:
            samples[self._next] = sample
            self._next = (self._next + 1) % LOOKUPS_MAX

    @property
    def nodes(self) -> float | None:
        """The number of nodes with ourselves; None before `LOOKUPS_MIN` look-ups."""
        samples = self._samples
        if samples is None or len(samples) < LOOKUPS_MIN:
            return None
        ordered = sorted(samples)
        middle = len(ordered) // 2
        return 1.0 + (ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)

    def expected_distance(self, k: int) -> int | None:
        """The XOR distance within which `k` nodes are to be expected around any target."""
        nodes = self.nodes
        return None if nodes is None else min(ID_SPACE - 1, int(k * ID_SPACE / nodes))

    def reset(self) -> None:
        """Forget all: another network."""
        self._samples = None
        self._next = 0
