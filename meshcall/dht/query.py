"""One iterative look-up in one address family: whom to ask next, and when it is over.  Pure: no time, no bytes.

It walks its candidates in order of distance to the target.  Those that are slow or failed are
stepped over, so the next one is asked in their place at once; a slow one that answers after all
counts again.  The *window* is the first k that are not stepped over, and everybody within `reach`
(for writing).  The look-up is over when the whole window has answered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable

from meshcall.core import Endpoint
from meshcall.dht.node_id import is_global, is_usable, subnet_of

NEW, ASKED, ANSWERED, SLOW, FAILED = range(5)

PARALLEL = 5
"""Requests under way while the neighbourhood of the target is still being approached."""
CANDIDATES_MAX = 48
"""Candidates kept; the nearest count.  Half of them may be dead before a look-up starves."""
CONTACTS_PER_ANSWER_MAX = 20
"""Contacts read from one answer (k is 8 or 20 in the networks there are)."""
WINDOW_MAX = 16
"""Nodes that a look-up may end on, however many are within `reach`."""
SILENT_PER_SPARE = 2
"""For so many silent candidates, one beyond the window is asked ahead..."""
SPARES_MAX = 6
"""...up to so many."""
SUBNET_ANSWERS_MAX = 2
"""Nodes of one public subnet (/24, /48) that count: nobody surrounds a target from one network.  It is
those who answer that are counted, so invented contacts cannot use up an honest neighbour's place."""


class Candidate:
    """A node that may be asked: `distance` to the target, `hops` of referrals to it, write `token` it gave."""

    __slots__ = ("distance", "endpoint", "hops", "node_id", "outstanding", "state", "token", "tries")

    def __init__(self, distance: int, node_id: bytes | None, endpoint: Endpoint, hops: int) -> None:
        self.distance = distance
        self.node_id = node_id
        self.endpoint = endpoint
        self.hops = hops
        self.state = NEW
        self.outstanding = 0
        self.tries = 0
        self.token = b""


class Query:
    """The state of a look-up.  `near`: distance within which a node probably belongs to the result
    (such are asked all at once); `reach`: distance within which every node belongs to it."""

    __slots__ = (
        "_distances",
        "_passed_over",
        "_seen",
        "_subnets",
        "_widened",
        "answers",
        "candidates",
        "finished",
        "k",
        "near",
        "reach",
        "target",
    )

    def __init__(self, target: int, k: int, near: int = 0, reach: int = 0) -> None:
        self.target = target
        self.k = k
        self.near = near
        self.reach = reach
        self.candidates: list[Candidate] = []
        self.answers = 0
        self.finished = False
        self._passed_over = False
        self._widened = False
        self._distances: list[int] = []
        self._seen: set[bytes] = set()
        self._subnets: dict[bytes, int] = {}

    def seed(self, endpoint: Endpoint) -> Candidate | None:
        """Add an address whose node ID is not known (it counts as nearest); None if it is there already."""
        if endpoint in self._seen:
            return None
        self._seen.add(endpoint)
        candidate = Candidate(-1, None, endpoint, 1)
        self._insert(candidate)
        return candidate

    def add(
        self, contacts: Iterable[tuple[bytes, Endpoint]], hops: int, private: bool, silent: Container[bytes] = ()
    ) -> None:
        """Add contacts (ID, endpoint).  `private`: the one who named them is in a private network;
        only such a one may send us to private addresses.  `silent`: endpoints known not to answer."""
        distances, seen, target = self._distances, self._seen, self.target
        for node_id, where in contacts:
            if where in seen:
                continue
            distance = int.from_bytes(node_id, "big") ^ target
            if len(distances) >= CANDIDATES_MAX and distance >= distances[-1]:
                continue
            if not is_usable(where):
                continue
            if not private and not is_global(where[:-2]):
                continue
            seen.add(where)
            candidate = Candidate(distance, node_id, where, hops)
            if where in silent:
                candidate.state = FAILED
                self._passed_over = True
            self._insert(candidate)

    @property
    def may_be_widened(self) -> bool:
        """Whether the candidates have run out before k answered, for the first time."""
        return not self._widened and self.answers < self.k

    def widen(self, contacts: Iterable[tuple[bytes, Endpoint]], silent: Container[bytes]) -> None:
        """Add farther contacts of our own table: too many of the nearest were dead."""
        self._widened = True
        self.add(contacts, 1, True, silent)

    def _insert(self, candidate: Candidate) -> None:
        at = bisect_right(self._distances, candidate.distance)
        self._distances.insert(at, candidate.distance)
        self.candidates.insert(at, candidate)
        if len(self.candidates) > CANDIDATES_MAX:
            self._distances.pop()
            self.candidates.pop()

    def answered(self, candidate: Candidate, node_id: bytes, token: bytes) -> str:
        """The candidate answered under this ID.  Returns why it does not count (and failed); empty if it does."""
        if candidate.node_id is None:
            self._identify(candidate, node_id)
        elif candidate.node_id != node_id:
            candidate.state = FAILED
            return "another id"
        candidate.state = ANSWERED
        candidate.token = token
        if is_global(candidate.endpoint[:-2]):
            subnet = subnet_of(candidate.endpoint)
            same = self._subnets[subnet] = self._subnets.get(subnet, 0) + 1
            if same > SUBNET_ANSWERS_MAX and self._thin_out(subnet) is candidate:
                return "crowded subnet"
        self.answers += 1
        return ""

    def _thin_out(self, subnet: bytes) -> Candidate | None:
        """Of too many in one subnet that answered, the farthest does not count (any more)."""
        same = [c for c in self.candidates if c.state == ANSWERED and subnet_of(c.endpoint) == subnet]
        if len(same) <= SUBNET_ANSWERS_MAX:
            return None
        same[-1].state = FAILED
        return same[-1]

    def _identify(self, candidate: Candidate, node_id: bytes) -> None:
        """A seed told its ID: it moves to its place."""
        at = self.candidates.index(candidate)
        del self.candidates[at], self._distances[at]
        candidate.node_id = node_id
        candidate.distance = int.from_bytes(node_id, "big") ^ self.target
        at = bisect_right(self._distances, candidate.distance)
        self._distances.insert(at, candidate.distance)
        self.candidates.insert(at, candidate)

    def take(self) -> list[Candidate]:
        """The candidates to ask now (they count as asked from here on); sets `finished`."""
        chosen: list[Candidate] = []
        window, waiting, silent, slow, spare = 0, 0, 0, False, 0
        for candidate in self.candidates:
            state = candidate.state
            if state >= SLOW:
                silent += 1
                slow = slow or state == SLOW
                continue
            if window >= self.k and (candidate.distance > self.reach or window >= WINDOW_MAX):
                # Where many are silent, more will be: ask ahead, so that silence is waited out once and not in turn.
                if not waiting or spare >= min(silent // SILENT_PER_SPARE, SPARES_MAX):
                    break
                spare += 1
                if state == NEW:
                    candidate.state = ASKED
                    chosen.append(candidate)
                continue
            window += 1
            if state == ASKED:
                waiting += 1
            elif state == NEW:
                waiting += 1
                if waiting <= PARALLEL or candidate.distance <= self.near:
                    candidate.state = ASKED
                    chosen.append(candidate)
        # While too few have answered, the slow ones are waited for: perhaps all of this network is slow.
        self.finished = not waiting and not (slow and self.answers < self.k)
        if self.finished and self._passed_over and 2 * self.answers < self.k:
            # With so few left, perhaps it was our own line that was silent.
            self._passed_over = False
            for candidate in self.candidates:
                if candidate.state == FAILED and not candidate.tries:
                    candidate.state = NEW
            return self.take()
        return chosen

    def result(self) -> list[Candidate]:
        """The nodes of the window that answered, nearest first."""
        found = [candidate for candidate in self.candidates if candidate.state == ANSWERED]
        count = self.k
        while count < min(len(found), WINDOW_MAX) and found[count].distance <= self.reach:
            count += 1
        return found[:count]
