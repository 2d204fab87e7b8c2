"""Requests that await their answer: transaction IDs, and the two moments at which patience ends.

A request is *slow* first (its asker turns to somebody else, the answer still counts) and *lost*
later.  The queue of these moments is a heap; answered requests are skipped when they surface.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from meshcall.core import Endpoint

if TYPE_CHECKING:
    from random import Random

REQUESTS_MAX = 1024
"""Requests under way at once; more are refused by `add`."""


class Request:
    """One query that was sent.  `owner` and `detail` are its asker's own business."""

    __slots__ = ("alone", "detail", "endpoint", "lost_at", "method", "node_id", "owner", "sent", "slow", "transaction")

    def __init__(
        self, endpoint: Endpoint, node_id: bytes | None, method: bytes, sent: float, owner: object, detail: object
    ) -> None:
        self.transaction = b""
        self.endpoint = endpoint
        self.node_id = node_id
        self.method = method
        self.sent = sent
        self.owner = owner
        self.detail = detail
        self.slow = False
        self.alone = False
        """Whether nobody at all was heard between sending and the moment at which it was slow."""
        self.lost_at = 0.0


class Pending:
    """The requests of one node."""

    __slots__ = ("_heap", "_number", "_requests", "_rng")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._requests: dict[bytes, Request] = {}
        self._heap: list[tuple[float, int, Request]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request, slow_at: float, lost_at: float) -> bool:
        """Give the request an unpredictable transaction ID and watch over it.  False: too many are under way."""
        if len(self._requests) >= REQUESTS_MAX:
            return False
        transaction = self._rng.getrandbits(32).to_bytes(4, "big")
        while transaction in self._requests:
            transaction = self._rng.getrandbits(32).to_bytes(4, "big")
        request.transaction = transaction
        request.lost_at = lost_at
        self._requests[transaction] = request
        self._number += 1
        heappush(self._heap, (slow_at, self._number, request))
        return True

    def match(self, transaction: bytes, source: Endpoint) -> Request | None:
        """Take out the request that this answer is for; None where nobody was asked there by that ID."""
        request = self._requests.get(transaction)
        if request is None or request.endpoint != source:
            return None
        del self._requests[transaction]
        return request

    def next_moment(self) -> float | None:
        """When the next request turns slow or is lost."""
        heap, requests = self._heap, self._requests
        while heap and heap[0][2].transaction not in requests:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[tuple[Request, bool]]:
        """The requests whose moment has come, and whether they are lost (and taken out) or only slow."""
        heap, requests = self._heap, self._requests
        found: list[tuple[Request, bool]] = []
        while heap and heap[0][0] <= now:
            _, _, request = heappop(heap)
            if requests.get(request.transaction) is not request:
                continue
            lost = request.slow
            if lost:
                del requests[request.transaction]
            else:
                request.slow = True
                self._number += 1
                heappush(heap, (request.lost_at, self._number, request))
            found.append((request, lost))
        return found

    def clear(self) -> None:
        """Forget all of them; answers that still come count as unasked."""
        self._requests.clear()
        self._heap.clear()
