"""The DHT node as one core: sorts messages between `client` (asks) and `server` (answers), keeps the
tables alive, and watches where we are seen and whether strangers reach us.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from meshcall.core import Endpoint
from meshcall.crypto.suite import PUBLIC_BYTES, Verifier
from meshcall.dht.client import BOOTSTRAP_MAX, FAMILY_OF_LENGTH, OPERATIONS_MAX, Client
from meshcall.dht.config import DhtConfig
from meshcall.dht.contact import Contact
from meshcall.dht.events import Event, Holder, Joined, OutsideChanged, ReachableChanged
from meshcall.dht.items import SALT_BYTES_MAX, SEQ_MAX, Item, MutableItem, mutable_target
from meshcall.dht.maintenance import REJOIN_MAX_SECONDS, TICK_SECONDS, Upkeep
from meshcall.dht.node_id import bep42_id, fits_bep42, is_global, is_usable, random_id_in
from meshcall.dht.observed import Observed
from meshcall.dht.operation import Operation, Writing, check_item, item_arguments
from meshcall.dht.reach import TOKEN_AGE_SECONDS, Reach, stands_behind_nat
from meshcall.dht.server import Server
from meshcall.dht.status import DhtStatus, FamilyStatus
from meshcall.dht.table import Identity, Table
from meshcall.errors import BadPacket, UsageError
from meshcall.wire import krpc
from meshcall.wire.bencode import decode

if TYPE_CHECKING:
    from random import Random

VOTE_PAUSE_SECONDS = 5.0
"""So often at most, one who confirms our outside address is counted."""
SIGHTED_MAX = 64
"""Sightings kept until the owner reads them."""
JOINED_ANSWERS = 4
"""Nodes that must have answered before look-ups make sense; the neighbourhood is still being explored then."""


class Dht:
    """A Mainline DHT node for one or both address families (4, 6).  A `core.Core`."""

    def __init__(
        self,
        now: float,
        *,
        rng: Random,
        verifier: Verifier,
        config: DhtConfig | None = None,
        families: tuple[int, ...] = (4,),
        pool: dict[bytes, Identity] | None = None,
    ) -> None:
        self.config = config = config or DhtConfig()
        if not families or any(family not in (4, 6) for family in families):
            raise UsageError("A DHT node needs the address family 4, 6 or both.")
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.events: list[Event] = []
        self._pool = pool
        self.tables = {
            family: self._new_table(config.node_id or random_id_in(rng, 0, 2**160 - 1)) for family in families
        }
        self.server = Server(now, rng=rng, verifier=verifier, config=config, tables=self.tables)
        self.counters = self.server.counters
        self._rng = rng
        self._verifier = verifier
        self._reach = Reach(config.reachable)
        self.client = Client(
            now,
            rng=rng,
            verifier=verifier,
            k=config.k,
            tables=self.tables,
            reach=self._reach,
            counters=self.counters,
            outbox=self.outbox,
            events=self.events,
        )
        self._told_reachable: bool | None = self._reach.reachable
        self.sighted: list[tuple[Endpoint, Endpoint]] | None = None
        """Who answered us, and where it saw us; an owner who wants to know sets a list, and empties it."""
        self._observed = {family: Observed() for family in families}
        self._upkeep = {family: Upkeep(now, rng) for family in families}
        self._local: tuple[Endpoint, ...] = ()
        self._joining: dict[int, Operation] = {}
        self._joined = False
        self._vote_at = now
        self._upkeep_at = now
        self.is_paused = False
        """The line is needed for something else: no upkeep of the tables, and no answers to strangers."""

    # The five members

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram; what is not a proper message is counted and dropped."""
        try:
            kind, transaction, message = krpc.parse_untrusted(data)
        except BadPacket as bad:
            self.server.count(f"bad packet: {bad.reason}")
            return
        family = FAMILY_OF_LENGTH.get(len(source))
        if family not in self.tables or not is_usable(source):
            self.server.count("bad packet: source")
        elif kind == b"q":
            self._query(now, family, source, transaction, message, len(data))
        elif self.client.response(now, family, source, transaction, message):
            self.server.proven.add(now, source)
            seen = message.get(b"ip")
            if type(seen) is bytes and len(seen) == len(source):
                self._observe(now, family, source, Endpoint(seen))
            if self._joining:
                self._check_joined()

    def wake(self, now: float) -> None:
        """Turn to others where an answer is late, give up on lost requests, keep the tables alive."""
        for request, lost in self.client.pending.due(now):
            if lost:
                self.client.lost(now, request)
            else:
                self.client.slow(now, request)
        if self._joining:
            self._check_joined()
        if now >= self._upkeep_at and self.is_paused:
            self._upkeep_at = now + TICK_SECONDS
        elif now >= self._upkeep_at:
            self._maintain(now)

    def next_wake(self) -> float | None:
        """When `wake` is due."""
        moment = self.client.pending.next_moment()
        return self._upkeep_at if moment is None or moment > self._upkeep_at else moment

    # Commands

    def bootstrap(self, now: float, endpoints: Iterable[Endpoint]) -> None:
        """Find the network through these addresses, now and whenever it was lost.  Event: Joined.

        The newest `BOOTSTRAP_MAX` are remembered."""
        known = self.client.bootstrap
        for where in endpoints:
            if is_usable(where):
                if where in known:
                    known.remove(where)
                known.append(where)
                if self._reach.behind_nat is None:
                    self._judge_nat(where)  # so that already the first query says whether we are read-only
        del known[:-BOOTSTRAP_MAX]
        for family in self.tables:
            joining = self._joining.get(family)
            if joining is not None and not joining.finished:
                self.client.reseed(now, joining)
            self._join(now, family)

    def restore(self, now: float, contacts: Iterable[tuple[bytes, Endpoint]]) -> None:
        """Take back contacts of an earlier run; they count as heard of, not as live."""
        for node_id, where in contacts:
            table = self.tables.get(FAMILY_OF_LENGTH.get(len(where), 0))
            if table is not None and len(node_id) == krpc.ID_BYTES and is_usable(where):
                table.hear(node_id, where)
        for family in self.tables:
            self._join(now, family)

    def get_mutable(
        self, now: float, public: bytes, salt: bytes = b"", *, trace: bool = False, for_writing: bool = False
    ) -> int:
        """Look up the newest item of a key.  Events: ItemFound (any number), then GetFinished.

        `for_writing`: the result names all nodes that a put should go to."""
        if len(public) != PUBLIC_BYTES or len(salt) > SALT_BYTES_MAX:
            raise UsageError("A key in the DHT has 32 bytes, a salt at most 64.")
        target = mutable_target(public, salt)
        operation = self.client.new(now, "get", target, public=public, salt=salt, trace=trace)
        return self.client.start(now, operation, for_writing)

    def get_immutable(self, now: float, target: bytes, *, trace: bool = False) -> int:
        """Look up a value by its hash.  Events: ItemFound, GetFinished."""
        return self.client.start(now, self.client.new(now, "get", target, trace=trace))

    def put(
        self,
        now: float,
        item: Item,
        *,
        cas: int | None = None,
        holders: Iterable[Holder] | None = None,
        trace: bool = False,
    ) -> int:
        """Store an item at the nodes nearest to its target, or at `holders` of an earlier look-up.

        `cas`: only where the stored seq is this (BEP 44).  Event: PutFinished.  Raises UsageError
        for an item that everybody would refuse."""
        problem = check_item(item, self._verifier)
        if cas is not None and not 0 <= cas <= SEQ_MAX:
            problem = "The expected seq (cas) is out of bounds."
        if problem:
            raise UsageError(problem)
        mutable = isinstance(item, MutableItem)
        public, salt = (item.public, item.salt) if isinstance(item, MutableItem) else (b"", b"")
        operation = self.client.new(now, "get", item.target, public=public if mutable else b"", salt=salt, trace=trace)
        operation.writing = Writing(b"put", item_arguments(item, cas, decode))
        return self.client.write(now, operation, holders)

    def get_peers(self, now: float, info_hash: bytes, *, trace: bool = False) -> int:
        """Look up endpoints announced under an info-hash.  Events: PeersFound, PeersFinished."""
        return self.client.start(now, self.client.new(now, "peers", info_hash, trace=trace))

    def announce(
        self, now: float, info_hash: bytes, port: int | None = None, *, holders: Iterable[Holder] | None = None
    ) -> int:
        """Announce ourselves under an info-hash; `port` None: the one that others see.  Event: PutFinished."""
        if port is not None and not 0 < port < 65536:
            raise UsageError(f"{port} is not a port number (1 to 65535).")
        operation = self.client.new(now, "peers", info_hash)
        implied = {b"implied_port": 1, b"port": 1} if port is None else {b"port": port}
        operation.writing = Writing(b"announce_peer", {b"info_hash": info_hash, **implied})
        return self.client.write(now, operation, holders)

    def cancel(self, operation: int) -> None:
        """Stop an operation; no event of it follows."""
        self.client.cancel(operation)

    def network_changed(self, now: float) -> None:
        """A new address, or the machine slept: old round trips and outside addresses no longer count."""
        self.client.round_trips.reset()
        self._reach.reset()
        for family in self.tables:
            changed = self._observed[family].outside is not None
            self._observed[family].reset()
            self._upkeep[family].restart(now)
            if changed:
                self.events.append(OutsideChanged(family, None))
            self._join(now, family)
        self._tell_reachable()

    def set_local_addresses(self, now: float, endpoints: Iterable[Endpoint]) -> None:
        """The endpoints of our own sockets; they tell a NAT from none."""
        self._local = tuple(endpoints)
        self._judge_nat(None)

    # What can be read

    def node_id(self, family: int = 4) -> bytes:
        """Our 20-byte ID in this family."""
        return self.tables[family].node.id

    def good_contacts(self, limit: int = 200) -> list[tuple[bytes, Endpoint]]:
        """Live contacts, those that answered last first, to be saved for `restore`."""
        live = [c for table in self.tables.values() for c in table.contacts() if c.seen and not c.failures]
        live.sort(key=lambda contact: -contact.seen)
        return [(contact.id, contact.endpoint) for contact in live[:limit]]

    def status(self, now: float) -> DhtStatus:
        """Everything that is worth showing."""
        families = []
        for family, table in self.tables.items():
            live = sum(1 for contact in table.contacts() if contact.seen and not contact.failures)
            observed = self._observed[family]
            families.append(
                FamilyStatus(
                    family=family,
                    node_id=table.node.id,
                    contacts=live,
                    heard=table.size - live,
                    waiting=sum(len(bucket.replacement_nodes) for bucket in table.buckets),
                    size_estimate=self.client.sizes[family].nodes,
                    outside=observed.outside,
                    mapping=observed.mapping(self._local),
                )
            )
        items, peers = self.server.items, self.server.peers
        return DhtStatus(
            families=tuple(families),
            reachable=self._reach.reachable,
            read_only=self._reach.read_only,
            operations=len(self.client.operations),
            requests=len(self.client.pending),
            items=items.items,
            item_bytes=items.bytes,
            peers=peers.count,
            counters=dict(self.counters),
        )

    # Operations

    # Requests and what becomes of them

    # Queries of others

    def _query(
        self, now: float, family: int, source: Endpoint, transaction: bytes, message: dict[bytes, Any], size: int
    ) -> None:
        if not self.server.admit(now, source):
            return
        arguments = message[b"a"]
        sender = arguments[b"id"]
        if self._reach.watching:
            self._reach.queried(now, source, self._observed[family].outside)
            self._tell_reachable()
        if message.get(b"ro") != 1:
            self.tables[family].hear(sender, source)
        if self._reach.read_only or self.is_paused:
            self.server.count("query while read-only" if self._reach.read_only else "query while paused")
            return
        data = self.server.answer(now, source, transaction, message, size)
        if data:
            self.outbox.append((source, data))
        if b"mcback" in arguments or b"mcdial" in arguments:
            self._dial_back(now, family, source, arguments)

    def _dial_back(self, now: float, family: int, source: Endpoint, arguments: dict[bytes, Any]) -> None:
        """See `reach`: pass a wish for a dial-back on, or fulfil one."""
        where = arguments.get(b"mcdial")
        token = arguments.get(b"mcback")
        if not self._reach.may_dial(now):
            self.server.count("dial-back over the rate")
        elif type(where) is bytes and len(where) == len(source) and is_usable(Endpoint(where)):
            if is_global(where[:-2]) == is_global(source[:-2]) and where[:-2] != source[:-2]:
                self.client.ask(now, Endpoint(where), None, b"ping", {}, None, None)
        elif type(token) is bytes and self.server.tokens.good(now, source, token):
            helper = self._anybody(family, source)
            if helper is not None:
                self.client.ask(now, helper.endpoint, helper.id, b"ping", {b"mcdial": bytes(source)}, None, None)

    def _anybody(self, family: int, but: Endpoint) -> Contact | None:
        """A live contact at another address, by chance."""
        table = self.tables[family]
        near = table.nearest(self._rng.getrandbits(160), self.config.k, live=True)
        others = [contact for contact in near if contact.endpoint[:-2] != but[:-2]]
        return self._rng.choice(others) if others else None

    # The network around us

    def _observe(self, now: float, family: int, observer: Endpoint, seen: Endpoint) -> None:
        if self.sighted is not None and len(self.sighted) < SIGHTED_MAX:
            self.sighted.append((observer, seen))
        observed = self._observed[family]
        before = observed.outside
        if seen == before and now < self._vote_at and not observed.per_destination:
            return  # nothing new, and lately confirmed
        self._vote_at = now + VOTE_PAUSE_SECONDS
        if not observed.vote(now, observer, seen):
            if self._reach.behind_nat is None:
                self._judge_nat(observer)
            return
        self._judge_nat(observer)
        if observed.outside != before:
            self.events.append(OutsideChanged(family, observed.outside))
        address = observed.address
        own = self.tables[family].node.id
        if address is not None and is_global(address) and self.config.node_id is None and not fits_bep42(own, address):
            self._change_id(now, family, bep42_id(address, self._rng))

    def _change_id(self, now: float, family: int, node_id: bytes) -> None:
        """Take the ID that BEP 42 asks for at this address, and sort the contacts anew around it."""
        old = self.tables[family]
        table = self.tables[family] = self._new_table(node_id)
        for contact in old.contacts():
            table.add_contact(contact)
        if family == min(self.tables):
            self.server.items.move(node_id)
        self._joining.pop(family, None)
        self._visit_neighbourhood(now, family)

    def _new_table(self, own_id: bytes) -> Table:
        return Table(own_id, self.config.k, self.config.split_bits, self._pool)

    def _judge_nat(self, peer: Endpoint | None) -> None:
        mappings = [observed.mapping(self._local) for observed in self._observed.values()]
        self._reach.judge(stands_behind_nat(mappings, self._local, peer))
        self._tell_reachable()

    def _tell_reachable(self) -> None:
        reachable = self._reach.reachable
        if reachable is not self._told_reachable:
            self._told_reachable = reachable
            if reachable is not None:
                self.events.append(ReachableChanged(reachable))

    def _join(self, now: float, family: int) -> None:
        """Look up our own ID, through whomever we know."""
        self._upkeep[family].rejoin(now)
        self._upkeep_at = min(self._upkeep_at, self._upkeep[family].rejoin_at)
        self._visit_neighbourhood(now, family)

    def _visit_neighbourhood(self, now: float, family: int) -> None:
        self._upkeep[family].visit(now)
        if family in self._joining or len(self.client.operations) >= OPERATIONS_MAX:
            return
        operation = self.client.new(now, "find", self.tables[family].node.id)
        if self.config.reachable == "auto":
            # get_peers finds nodes as well as find_node does, and brings tokens: see `reach`.
            operation.method, operation.key = b"get_peers", b"info_hash"
        self._joining[family] = operation
        self.client.start(now, operation)

    def _check_joined(self) -> None:
        """Enough of the network is known for look-ups to begin."""
        for family, operation in list(self._joining.items()):
            if operation.finished:
                del self._joining[family]
            if not self._joined and operation.answers >= (1 if operation.finished else JOINED_ANSWERS):
                self._joined = True
                self.events.append(Joined(sum(table.size for table in self.tables.values())))

    def _maintain(self, now: float) -> None:
        moments = []
        self._reach.expire(now)
        self._tell_reachable()
        for family, table in self.tables.items():
            upkeep = self._upkeep[family]
            lonely = bool(self.client.bootstrap) and (table.empty or self.client.deaf)
            if table.empty:
                upkeep.neighbourhood_at = now  # to be explored as soon as there is anybody to ask
            if now >= upkeep.rejoin_at and (lonely or not table.empty):
                if lonely or self._is_thin(table):
                    self._join(now, family)  # when we came, those we asked may not have known many others yet
                else:
                    upkeep.rejoin_at = now + REJOIN_MAX_SECONDS
            elif now >= upkeep.neighbourhood_at and not table.empty:
                self._visit_neighbourhood(now, family)
            if now >= upkeep.next_tick:
                due = upkeep.tick(now, table)
                if due is not None:
                    contact, target = due
                    self.client.ask(now, contact.endpoint, contact.id, b"find_node", {b"target": target}, None, None)
                if self._observed[family].expire(now):
                    self.events.append(OutsideChanged(family, self._observed[family].outside))
                    self._judge_nat(None)
                if self._reach.read_only:
                    self._ask_for_dial_back(now, family)
                    upkeep.next_tick = min(upkeep.next_tick, max(now + TICK_SECONDS, self._reach.next_ask))
            alone = table.empty and not lonely
            moments.append(upkeep.next_tick if alone else min(upkeep.next_tick, upkeep.rejoin_at))
        self.server.items.expire(now)
        self.server.peers.expire(now)
        self._upkeep_at = min(moments)

    def _is_thin(self, table: Table) -> bool:
        """Whether fewer than k contacts have answered and not failed since."""
        missing = self.config.k
        for contact in table.contacts():
            if contact.seen and not contact.failures:
                missing -= 1
                if not missing:
                    return False
        return True

    def _ask_for_dial_back(self, now: float, family: int) -> None:
        holder = self.client.last_holder
        if holder is None or FAMILY_OF_LENGTH[len(holder.endpoint)] != family or not self._reach.asks(now):
            return
        if now - self.client.last_holder_at > TOKEN_AGE_SECONDS:
            self._visit_neighbourhood(now, family)  # brings a new token for the next time
        else:
            self.client.ask(now, holder.endpoint, holder.node_id, b"ping", {b"mcback": holder.token}, None, None)
