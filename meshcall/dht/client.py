"""The asking side of a DHT node: requests, look-ups and writes, and what becomes of each.

The way of a look-up: `start` -> `query` chooses whom to ask -> `ask` -> datagram ... datagram ->
`response` -> `operation` takes the answer -> `_advance` asks the next or finishes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from meshcall.core import Endpoint
from meshcall.crypto.suite import Verifier
from meshcall.dht.contact import Contact
from meshcall.dht.events import Event, GetFinished, Holder, PeersFinished, PutFinished
from meshcall.dht.maintenance import STALE_SECONDS
from meshcall.dht.node_id import is_global, is_usable
from meshcall.dht.operation import WRITE_TRIES_MAX, Operation, Write
from meshcall.dht.pending import REQUESTS_MAX, Pending, Request
from meshcall.dht.query import (
    ANSWERED,
    ASKED,
    CANDIDATES_MAX,
    CONTACTS_PER_ANSWER_MAX,
    FAILED,
    NEW,
    SLOW,
    Candidate,
    Query,
)
from meshcall.dht.reach import Reach
from meshcall.dht.rtt import RoundTrips
from meshcall.dht.size import SizeEstimate
from meshcall.dht.table import Table
from meshcall.errors import UsageError
from meshcall.wire import krpc

if TYPE_CHECKING:
    from random import Random

OPERATIONS_MAX = 512
"""Operations under way at once."""
BOOTSTRAP_MAX = 32
"""Addresses remembered for finding the network again."""
SEEDS_MAX = 8
"""Of those, asked in one look-up while the table is nearly empty, or all of it silent."""
DEAF_REQUESTS = 8
"""So many lost requests without an answer in between: everybody we know may be gone, not only our line."""
ASK_TRIES_MAX = 2
"""Times that a look-up asks the same node."""
LOOKUP_REQUESTS_MAX = 256
"""Requests of one look-up (20 are common, 60 where most nodes are dead)..."""
LOOKUP_SECONDS_MAX = 30.0
"""...and its time; after them it ends on what it has.  Else ever nearer contacts that answer late could hold it up."""
NEAR_FACTOR = 1.5
"""A node within the expected distance of the (1.5 k)-th probably belongs to the result."""
SILENT_SECONDS = 60.0
"""For so long, look-ups pass over an endpoint that did not answer, whoever names it..."""
SILENT_MAX = 256
"""...and so many of them are remembered."""
FAMILY_OF_LENGTH = {6: 4, 18: 6}
"""Address family by the length of an endpoint."""


class Client:
    """Asks.  Tables (by family), counters, outbox and events are shared with its owner."""

    def __init__(
        self,
        now: float,
        *,
        rng: Random,
        verifier: Verifier,
        k: int,
        tables: dict[int, Table],
        reach: Reach,
        counters: dict[str, int],
        outbox: list[tuple[Endpoint, bytes]],
        events: list[Event],
    ) -> None:
        self.pending = Pending(rng)
        self.round_trips = RoundTrips()
        self.sizes = {family: SizeEstimate() for family in tables}
        self.operations: dict[int, Operation] = {}
        self.bootstrap: list[Endpoint] = []
        self.last_holder: Holder | None = None
        """The node that gave us a write token last."""
        self.last_holder_at = now
        self._rng = rng
        self._verifier = verifier
        self._k = k
        self._tables = tables
        self._reach = reach
        self._counters = counters
        self._outbox = outbox
        self._events = events
        self._number = 0
        self._heard_at = now
        self._unheard = 0
        self._silent: dict[Endpoint, float] = {}
        self._starved: dict[int, Operation] = {}

    @property
    def heard_at(self) -> float:
        """When a request of ours was last answered; at first, when we began."""
        return self._heard_at

    @property
    def deaf(self) -> bool:
        """Whether nobody answers any more."""
        return self._unheard >= DEAF_REQUESTS

    def new(
        self, now: float, kind: str, target: bytes, *, public: bytes = b"", salt: bytes = b"", trace: bool = False
    ) -> Operation:
        """A new operation, not started.  Raises UsageError if there are too many."""
        if len(target) != krpc.ID_BYTES:
            raise UsageError("A target in the DHT has 20 bytes.")
        if len(self.operations) >= OPERATIONS_MAX:
            raise UsageError(f"{OPERATIONS_MAX} DHT operations are under way already; wait for one to finish.")
        self._number += 1
        return Operation(self._number, now, kind, target, public=public, salt=salt, trace=trace)

    def write(self, now: float, operation: Operation, holders: Iterable[Holder] | None) -> int:
        """Write to these holders, or look for some first; the number of the operation."""
        operation.silent = True
        if holders is None:
            return self.start(now, operation, for_writing=True)
        self.operations[operation.number] = operation
        self._write_all(now, operation, holders)
        return operation.number

    def start(self, now: float, operation: Operation, for_writing: bool = False) -> int:
        """Begin a look-up from what the tables know; the number of the operation."""
        self.operations[operation.number] = operation
        number = int.from_bytes(operation.target, "big")
        for family, table in self._tables.items():
            size = self.sizes[family]
            near = size.expected_distance(int(self._k * NEAR_FACTOR)) or 0
            reach = (size.expected_distance(self._k) or 0) if for_writing else 0
            query = operation.queries[family] = Query(number, self._k, near, reach)
            contacts = table.nearest(number, self._k * 2)
            query.add([(c.id, c.endpoint) for c in contacts], 1, True, self._recently_silent(now))
            if len(contacts) < self._k or self.deaf:
                self._seed(family, query)
        self._advance(now, operation)
        return operation.number

    def reseed(self, now: float, operation: Operation) -> None:
        """Let a look-up under way ask the bootstrap addresses too."""
        for family, query in operation.queries.items():
            self._seed(family, query)
        self._advance(now, operation)

    def _seed(self, family: int, query: Query) -> None:
        known = [where for where in self.bootstrap if FAMILY_OF_LENGTH[len(where)] == family]
        for where in known if len(known) <= SEEDS_MAX else self._rng.sample(known, SEEDS_MAX):
            query.seed(where)

    def _advance(self, now: float, operation: Operation) -> None:
        """Ask whom there is to ask; finish if all has been answered."""
        done = True
        if operation.requests >= LOOKUP_REQUESTS_MAX or now - operation.started > LOOKUP_SECONDS_MAX:
            self._looked_up(now, operation)
            return
        for family, query in operation.queries.items():
            chosen = query.take()
            if query.finished and query.may_be_widened:
                contacts = self._tables[family].nearest(query.target, CANDIDATES_MAX)
                query.widen([(c.id, c.endpoint) for c in contacts], self._recently_silent(now))
                chosen = query.take()
            for candidate in chosen:
                self._ask_candidate(now, operation, candidate)
            done = done and query.finished
        if done:
            self._looked_up(now, operation)

    def _ask_candidate(self, now: float, operation: Operation, candidate: Candidate) -> None:
        arguments: dict[bytes, Any] = {operation.key: operation.target}
        if self.ask(now, candidate.endpoint, candidate.node_id, operation.method, arguments, operation, candidate):
            candidate.tries += 1
            candidate.outstanding += 1
        elif not candidate.tries:
            candidate.state = NEW
            self._starved[operation.number] = operation

    def _looked_up(self, now: float, operation: Operation) -> None:
        """All queries of the operation are over."""
        if operation.finished:
            return
        for family, query in operation.queries.items():
            distances = [candidate.distance for candidate in query.result()[: self._k]]
            # The first look-up of our own ID was made by one who knew nobody, often while the network grew.
            if len(distances) == self._k and (operation.kind != "find" or self.sizes[family].nodes is not None):
                self.sizes[family].add(distances, self._k)
        if operation.writing is not None:
            self._write_all(now, operation, operation.holders())
            return
        self._end(operation)
        report = operation.report(now)
        if operation.kind == "get":
            self._events.append(GetFinished(operation.number, operation.item, operation.holders(), report))
        elif operation.kind == "peers":
            self._events.append(PeersFinished(operation.number, operation.peers, operation.holders(), report))

    def _end(self, operation: Operation) -> None:
        operation.finished = True
        self.operations.pop(operation.number, None)

    def _write_all(self, now: float, operation: Operation, holders: Iterable[Holder]) -> None:
        for write in operation.begin_writing(holders):
            self._send_write(now, operation, write)
        self._check_written(now, operation)

    def _send_write(self, now: float, operation: Operation, write: Write) -> None:
        writing = operation.writing
        assert writing is not None
        arguments = {**writing.arguments, b"token": write.holder.token}
        where, node_id = write.holder.endpoint, write.holder.node_id
        if FAMILY_OF_LENGTH.get(len(where)) not in self._tables:
            writing.refused(write, 0)
        elif self.ask(now, where, node_id, writing.method, arguments, operation, write):
            write.tries += 1
        elif write.tries:
            writing.refused(write, 0)
        else:
            self._starved[operation.number] = operation

    def _feed(self, now: float) -> None:
        """There is room for requests again: go on with the operations that found none."""
        while self._starved and len(self.pending) < REQUESTS_MAX:
            operation = self._starved.pop(next(iter(self._starved)))
            if operation.finished:
                continue
            if operation.writing is None or not operation.writing.writes:
                self._advance(now, operation)
                continue
            for write in operation.writing.writes:
                if not write.done and not write.tries:
                    self._send_write(now, operation, write)
            self._check_written(now, operation)

    def _check_written(self, now: float, operation: Operation) -> None:
        writing = operation.writing
        if writing is not None and writing.finished and not operation.finished:
            self._end(operation)
            event = PutFinished(operation.number, writing.stored, dict(writing.errors), operation.report(now))
            self._events.append(event)

    def ask(
        self,
        now: float,
        endpoint: Endpoint,
        node_id: bytes | None,
        method: bytes,
        arguments: dict[bytes, Any],
        owner: Operation | None,
        detail: Candidate | Write | None,
    ) -> bool:
        """Send a query.  False where too many are under way or the family is not ours."""
        table = self._tables.get(FAMILY_OF_LENGTH[len(endpoint)])
        if table is None:
            return False
        request = Request(endpoint, node_id, method, now, owner, detail)
        contact = table.at(endpoint)
        slow = self.round_trips.slow_after(contact.rtt if contact is not None else 0.0)
        if not self.pending.add(request, now + slow, now + self.round_trips.lost_after(slow)):
            self._count("request refused: too many under way")
            return False
        arguments[b"id"] = table.node.id
        if len(self._tables) > 1 and method != b"ping" and (owner is None or owner.kind == "find"):
            arguments[b"want"] = [b"n4", b"n6"]  # BEP 32
        self._outbox.append((endpoint, krpc.query(request.transaction, method, arguments, self._reach.read_only)))
        if self._reach.watching:
            self._reach.sent_to(now, endpoint)
        if owner is not None:
            owner.sent(request.transaction, now, endpoint, node_id)
        return True

    def response(
        self, now: float, family: int, source: Endpoint, transaction: bytes, message: dict[bytes, Any]
    ) -> bool:
        """Take an answer or a refusal.  False where it is not for a request of ours."""
        request = self.pending.match(transaction, source)
        if request is None:
            self._count("answer that nobody asked for")
            return False
        self._heard_at = now
        self._unheard = 0
        answered = message[b"y"] == b"r"
        node_id = message[b"r"][b"id"] if answered else None
        if node_id == self._tables[family].node.id:
            self._count("answer under our own id")
            answered, node_id = False, None
        self._met(now, family, source, node_id, now - request.sent)
        operation, detail = request.owner, request.detail
        if answered and len(self._tables) > 1:
            for other in self._tables.keys() - {family}:
                self._hear(other, source, krpc.nodes_untrusted(message[b"r"], other))
        if not isinstance(operation, Operation):
            if answered:
                self._hear(family, source, krpc.nodes_untrusted(message[b"r"], family))
            return True
        if isinstance(detail, Write):
            self._write_answered(now, operation, detail, request, message, answered)
        elif isinstance(detail, Candidate):
            detail.outstanding -= 1
            if answered and node_id is not None:
                self._candidate_answered(now, operation, detail, request, node_id, message[b"r"])
            else:
                operation.note(request.transaction, now, None, "refused")
                self._candidate_failed(now, operation, detail)
        if self._starved:
            self._feed(now)
        return True

    def _met(self, now: float, family: int, source: Endpoint, node_id: bytes | None, took: float) -> None:
        """Somebody answered: the contact is live."""
        table = self._tables[family]
        contact = table.at(source)
        self._silent.pop(source, None)
        if node_id is not None and (contact is None or contact.id != node_id):
            contact = Contact(node_id, source)
            contact.seen = now
            contact.rtt = self.round_trips.add(took, 0.0)
            stale = table.add_contact(contact)
            if stale is not None and now - stale.seen > STALE_SECONDS:
                self.ask(now, stale.endpoint, stale.id, b"ping", {}, None, None)
        elif contact is not None:
            contact.rtt = self.round_trips.add(took, contact.rtt)
            contact.seen = now
            contact.failures = 0

    def _hear(
        self, family: int, source: Endpoint, contacts: list[tuple[bytes, Endpoint]]
    ) -> list[tuple[bytes, Endpoint]]:
        """Contacts that a node named: usable ones find a place in the table if there is room."""
        table = self._tables[family]
        private = not is_global(source[:-2])
        own = table.node.id
        usable = []
        for node_id, where in contacts[:CONTACTS_PER_ANSWER_MAX]:
            if where not in table.by_endpoint:
                if node_id == own or not is_usable(where) or not (private or is_global(where[:-2])):
                    continue
                table.hear(node_id, where)
            usable.append((node_id, where))
        return usable

    def _candidate_answered(
        self,
        now: float,
        operation: Operation,
        candidate: Candidate,
        request: Request,
        node_id: bytes,
        values: dict[bytes, Any],
    ) -> None:
        family = FAMILY_OF_LENGTH[len(candidate.endpoint)]
        contacts = self._hear(family, candidate.endpoint, krpc.nodes_untrusted(values, family))
        if operation.finished or (operation.writing is not None and operation.writing.writes):
            return
        outcome = operation.answered(candidate, node_id, values, self._verifier, self._events)
        operation.note(request.transaction, now, node_id, outcome)
        if outcome.startswith("invalid") or outcome in ("another id", "crowded subnet"):
            self._count(f"answer with {outcome}")
        if candidate.state == ANSWERED:
            if candidate.token:
                self.last_holder = Holder(node_id, candidate.endpoint, candidate.token)
                self.last_holder_at = now
            private = not is_global(candidate.endpoint[:-2])
            operation.queries[family].add(contacts, candidate.hops + 1, private, self._recently_silent(now))
        self._advance(now, operation)

    def _candidate_failed(self, now: float, operation: Operation, candidate: Candidate) -> None:
        if candidate.state != ANSWERED and not candidate.outstanding:
            candidate.state = FAILED
        if not operation.finished and not (operation.writing is not None and operation.writing.writes):
            self._advance(now, operation)

    def _write_answered(
        self, now: float, operation: Operation, write: Write, request: Request, message: dict[bytes, Any], stored: bool
    ) -> None:
        writing = operation.writing
        if operation.finished or writing is None or write.done:
            return
        if stored:
            write.done = True
            writing.stored += 1
            operation.note(request.transaction, now, message[b"r"][b"id"], "stored")
        else:
            code = message[b"e"][0] if message[b"y"] == b"e" else 0
            code = code if 0 < code < 1000 else krpc.GENERIC_ERROR
            writing.refused(write, code)
            operation.note(request.transaction, now, None, "refused")
        self._check_written(now, operation)

    def slow(self, now: float, request: Request) -> None:
        """No answer yet: turn to the next, and ask once more (the datagram may be lost)."""
        operation, detail = request.owner, request.detail
        request.alone = self._heard_at <= request.sent
        if request.alone and request.owner is None and request.method == b"find_node":
            self._probe(now, request)
        if not isinstance(operation, Operation) or operation.finished:
            return
        if isinstance(detail, Candidate) and detail.state == ASKED:
            operation.note(request.transaction, None, None, "slow")
            detail.state = SLOW
            if detail.tries < ASK_TRIES_MAX:
                self._ask_candidate(now, operation, detail)
            self._advance(now, operation)
        elif isinstance(detail, Write) and not detail.done and operation.writing is not None:
            if detail.tries < WRITE_TRIES_MAX:
                self._send_write(now, operation, detail)
            else:
                operation.writing.refused(detail, 0)
            self._check_written(now, operation)

    def _probe(self, now: float, request: Request) -> None:
        """One contact is silent while nothing else is under way: is it our line?  Another one will tell."""
        table = self._tables[FAMILY_OF_LENGTH[len(request.endpoint)]]
        for contact in table.nearest(self._rng.getrandbits(160), 2, live=True):
            if contact.endpoint != request.endpoint:
                self.ask(now, contact.endpoint, contact.id, b"ping", {}, None, None)
                break

    def lost(self, now: float, request: Request) -> None:
        """No answer at all."""
        table = self._tables[FAMILY_OF_LENGTH[len(request.endpoint)]]
        contact = table.at(request.endpoint)
        operation, detail = request.owner, request.detail
        if isinstance(operation, Operation):
            operation.note(request.transaction, None, None, "failed")
        if isinstance(detail, Candidate):
            detail.outstanding -= 1
        # Not while nobody at all is heard: then it is our own line that is down.
        self._unheard += 1
        again = isinstance(detail, Candidate) and detail.outstanding > 0
        if not again and request.sent < self._heard_at:
            if contact is not None and contact.seen <= request.sent:
                table.failed(contact)
            # A break of our line shows in that nobody else was heard either while this answer was due.
            if not request.alone:
                self._silent[request.endpoint] = now
                if len(self._silent) > SILENT_MAX:
                    del self._silent[next(iter(self._silent))]
        if isinstance(operation, Operation) and isinstance(detail, Candidate):
            self._candidate_failed(now, operation, detail)
        if self._starved:
            self._feed(now)

    def cancel(self, number: int) -> None:
        """Stop an operation; no event of it follows."""
        cancelled = self.operations.pop(number, None)
        if cancelled is not None:
            cancelled.finished = True

    def _recently_silent(self, now: float) -> dict[Endpoint, float]:
        """Endpoints that did not answer lately, in the order in which that was noticed."""
        silent = self._silent
        while silent:
            where = next(iter(silent))
            if now - silent[where] < SILENT_SECONDS:
                break
            del silent[where]
        return silent

    def _count(self, what: str) -> None:
        self._counters[what] = self._counters.get(what, 0) + 1
