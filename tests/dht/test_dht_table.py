"""The routing table: exactly the nearest, who gets a place and who gives way, quotas of subnets."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kademlia.node import Node

from meshcall.core import Endpoint, endpoint
from meshcall.dht.contact import Contact
from meshcall.dht.node_id import bep42_id, fits_bep42, is_global, subnet_of
from meshcall.dht.table import (
    CROWDS,
    FAILURES_MAX,
    REPLACEMENTS_MAX,
    SPLIT_BITS,
    SUBNET_BUCKET_MAX,
    SUBNET_TABLE_MAX,
    Table,
)

OWN = b"\x00" * 20


def id_of(number: int) -> bytes:
    return number.to_bytes(20, "big")


def private(number: int) -> Endpoint:
    return endpoint(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 6881)


def live(node_id: bytes, where: Endpoint, seen: float = 1.0) -> Contact:
    contact = Contact(node_id, where)
    contact.seen = seen
    return contact


def far(number: int) -> bytes:
    """An ID in the half of the ID space that is not our own."""
    return b"\x80" + number.to_bytes(19, "big")


def filled(rng: Random, count: int, own: bytes = OWN, k: int = 8) -> Table:
    """A table that has met many nodes, some of which only by name and some of which failed."""
    table = Table(own, k)
    for number in range(count):
        close = rng.choice((0, 0, 0, 8, 20, 60, 120, 150))
        node_id = (int.from_bytes(own, "big") ^ rng.getrandbits(160 - close)).to_bytes(20, "big")
        if rng.random() < 0.3:
            table.hear(node_id, private(number))
        else:
            table.add_contact(live(node_id, private(number), number + 1.0))
    for contact in list(table.contacts()):
        if rng.random() < 0.1:
            table.failed(contact)
    return table


def check(table: Table) -> None:
    """What always holds."""
    everybody = []
    lowest = 0
    for bucket in table.buckets:
        assert bucket.range[0] == lowest
        lowest = bucket.range[1] + 1
        assert len(bucket.nodes) <= table.ksize
        assert len(bucket.replacement_nodes) <= REPLACEMENTS_MAX
        assert not bucket.nodes.keys() & bucket.replacement_nodes.keys()
        for nodes in (bucket.nodes, bucket.replacement_nodes):
            for node_id, contact in nodes.items():
                assert contact.id == node_id
                assert bucket.range[0] <= contact.long_id <= bucket.range[1]
                assert contact.long_id == int.from_bytes(node_id, "big")
                everybody.append(contact)
        assert all(contact.seen for contact in bucket.replacement_nodes.values())
        assert not (bucket.replacement_nodes and len(bucket.nodes) < table.ksize)
        publics = [subnet_of(contact.endpoint) for contact in bucket.nodes.values() if is_global(contact.endpoint[:-2])]
        assert all(publics.count(subnet) <= SUBNET_BUCKET_MAX for subnet in publics)
    assert lowest == 2**160
    assert len(table.buckets) <= 160 + 2**SPLIT_BITS
    assert len({contact.endpoint for contact in everybody}) == len(everybody)
    assert len({contact.id for contact in everybody}) == len(everybody)
    assert all(table.at(contact.endpoint) is contact for contact in everybody)
    assert len(table.by_endpoint) == len(everybody)
    assert table.empty == (not everybody)
    assert table.size == len(list(table.contacts()))
    counts: dict[bytes, int] = {}
    cells = [0] * CROWDS
    for contact in everybody:
        subnet = subnet_of(contact.endpoint)
        cells[int.from_bytes(subnet, "big") % CROWDS] += 1
        if is_global(contact.endpoint[:-2]):
            counts[subnet] = counts.get(subnet, 0) + 1
    assert list(table._crowds) == cells
    assert all(count <= SUBNET_TABLE_MAX for count in counts.values())
    assert table.node.id not in {contact.id for contact in everybody}


# The nearest


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(0, 500), st.integers(1, 40), st.booleans(), st.integers(0, 160), st.booleans()
)
def test_the_nearest_are_exactly_those(seed: int, count: int, wanted: int, alive: bool, close: int, own: bool) -> None:
    rng = Random(seed)
    table = filled(rng, count, rng.randbytes(20))
    check(table)
    for _ in range(5):
        target = rng.getrandbits(160)
        if own:
            target = int.from_bytes(table.node.id, "big") ^ rng.getrandbits(160 - close)
        all_of_them = [c for c in table.contacts() if not alive or (c.seen and not c.failures)]
        expected = sorted(all_of_them, key=lambda contact: contact.long_id ^ target)[:wanted]
        assert table.nearest(target, wanted, live=alive) == expected


@pytest.mark.parametrize("target", [0, 1, 2**159 - 1, 2**159, 2**160 - 1])
def test_the_nearest_at_the_edges(target: int) -> None:
    table = filled(Random(7), 300)
    expected = sorted(table.contacts(), key=lambda contact: contact.long_id ^ target)[:8]
    assert table.nearest(target, 8) == expected
    assert Table(OWN, 8).nearest(target, 8) == []


def test_the_package_s_name_for_it_leaves_out_the_node_itself() -> None:
    table = filled(Random(8), 200)
    some = next(iter(table.contacts()))
    assert some not in table.find_neighbors(some)
    first = table.find_neighbors(Node(b"\x55" * 20), 4)
    assert first == table.nearest(int.from_bytes(b"\x55" * 20, "big"), 4)
    assert first[0] not in table.find_neighbors(Node(b"\x55" * 20), 4, exclude=first[0])


# Places


def test_our_own_half_splits_and_the_others_down_to_the_split_bits() -> None:
    table = filled(Random(1), 3000)
    depths = [bucket.depth() for bucket in table.buckets]
    own = table.bucket_for(0)
    assert own.depth() == max(depths) > SPLIT_BITS
    neighbours = [bucket for bucket in table.buckets if bucket.depth() > SPLIT_BITS]
    path = [bucket for bucket in neighbours if bucket is not own]
    assert len({bucket.depth() for bucket in path}) == len(path)  # one sibling on each level of our own path
    assert min(depths) == SPLIT_BITS


def test_a_coarser_table_has_fewer_buckets() -> None:
    coarse, fine = (Table(OWN, 8, split_bits=bits) for bits in (1, 5))
    rng = Random(2)
    for number in range(2000):
        node_id = rng.randbytes(20)
        for table in (coarse, fine):
            table.add_contact(live(node_id, private(number)))
    assert len(coarse.buckets) < len(fine.buckets)
    assert coarse.size < fine.size
    check(coarse)


def test_ourselves_are_never_taken_in() -> None:
    table = Table(OWN, 8)
    table.hear(OWN, private(1))
    assert table.add_contact(live(OWN, private(1))) is None
    assert table.empty


def full(k: int = 8) -> Table:
    """A table whose far buckets cannot split, with k live contacts in the last one."""
    table = Table(OWN, k, split_bits=1)
    for number in range(k):
        assert table.add_contact(live(far(number), private(number), 10.0 + number)) is None
    return table


def test_a_full_bucket_names_who_answered_longest_ago_and_the_newcomer_waits() -> None:
    table = full()
    newcomer = live(far(100), private(100), 50.0)
    stale = table.add_contact(newcomer)
    assert stale is not None
    assert stale.id == far(0)
    assert table.at(private(100)) is newcomer
    assert newcomer not in list(table.contacts())
    table.failed(stale)
    table.failed(stale)
    assert table.at(private(0)) is None
    assert newcomer in list(table.contacts())
    check(table)


def test_the_newest_of_those_who_wait_gets_the_place_and_the_oldest_is_forgotten() -> None:
    table = full()
    for number in range(100, 100 + REPLACEMENTS_MAX + 3):
        table.add_contact(live(far(number), private(number), float(number)))
    check(table)
    assert table.at(private(100)) is None
    assert table.at(private(102)) is None
    contact = table.at(private(3))
    assert contact is not None
    table.remove_contact(contact)
    newest = table.at(private(100 + REPLACEMENTS_MAX + 2))
    assert newest in list(table.contacts())
    check(table)


def test_a_contact_leaves_after_its_failures() -> None:
    table = full()
    contact = table.at(private(3))
    assert contact is not None
    for _ in range(FAILURES_MAX - 1):
        table.failed(contact)
        assert contact in list(table.contacts())
        assert contact not in table.nearest(0, 100, live=True)
    table.failed(contact)
    assert contact not in list(table.contacts())
    assert table.at(private(3)) is None
    check(table)


def test_one_that_failed_gives_way_at_once_to_one_that_answered() -> None:
    table = full()
    failing = table.at(private(5))
    assert failing is not None
    table.failed(failing)
    newcomer = live(far(200), private(200))
    assert table.add_contact(newcomer) is None
    assert newcomer in list(table.contacts())
    assert table.at(private(5)) is None
    check(table)


def test_heard_contacts_are_never_named_and_give_way() -> None:
    table = Table(OWN, 8, split_bits=1)
    for number in range(20):
        table.hear(far(number), private(number))
    assert table.size == 8
    assert table.nearest(2**159, 8, live=True) == []
    assert len(table.nearest(2**159, 8)) == 8
    for number in range(100, 108):
        assert table.add_contact(live(far(number), private(number))) is None
    assert {contact.id for contact in table.contacts()} == {far(number) for number in range(100, 108)}
    table.hear(far(300), private(300))
    assert table.at(private(300)) is None
    check(table)


def test_a_heard_contact_leaves_at_its_first_failure() -> None:
    table = Table(OWN, 8)
    table.hear(far(1), private(1))
    contact = table.at(private(1))
    assert contact is not None
    table.failed(contact)
    assert table.empty


def test_an_endpoint_has_one_id_at_a_time() -> None:
    table = Table(OWN, 8)
    table.add_contact(live(far(1), private(1)))
    table.add_contact(live(far(2), private(1)))
    assert [contact.id for contact in table.contacts()] == [far(2)]
    table.hear(far(3), private(1))
    assert [contact.id for contact in table.contacts()] == [far(2)]
    check(table)


def test_a_known_id_stays_where_it_answers_whoever_claims_it() -> None:
    table = Table(OWN, 8)
    table.add_contact(live(far(1), private(1)))
    assert table.add_contact(live(far(1), private(2))) is None
    table.hear(far(1), private(3))
    assert [contact.endpoint for contact in table.contacts()] == [private(1)]
    holder = table.at(private(1))
    assert holder is not None
    table.failed(holder)
    assert table.add_contact(live(far(1), private(2))) is holder  # to be pinged before it loses its ID
    table.failed(holder)
    table.failed(holder)
    table.add_contact(live(far(1), private(2)))
    assert [contact.endpoint for contact in table.contacts()] == [private(2)]
    check(table)


def test_who_was_only_named_loses_its_id_to_who_answers() -> None:
    table = Table(OWN, 8)
    table.hear(far(1), private(1))
    table.add_contact(live(far(1), private(2)))
    assert [contact.endpoint for contact in table.contacts()] == [private(2)]
    check(table)


def test_ids_that_break_bep_42_give_way_to_those_that_keep_to_it() -> None:
    table, rng = Table(OWN, 8, split_bits=0), Random(3)
    number = 0
    while table.size < 8:
        number += 1
        where = endpoint(f"45.{number}.1.1", 6881)
        if not fits_bep42(far(number), where[:-2]):
            table.add_contact(live(far(number), where))
    where = endpoint("46.1.1.1", 6881)
    fitting = b""
    while not fitting.startswith(b"\x80"[:1]) and not (fitting and fitting[0] & 0x80):
        where = endpoint(f"46.{rng.randrange(256)}.1.1", 6881)
        fitting = bep42_id(where[:-2], rng)
    assert table.add_contact(live(fitting, where)) is None
    assert table.at(where) in list(table.contacts())
    check(table)


# Subnets


def test_a_public_subnet_has_two_places_in_a_bucket() -> None:
    table = Table(OWN, 8, split_bits=1)
    for number in range(20):
        table.add_contact(live(far(number), endpoint(f"45.1.2.{number + 1}", 6881)))
        table.hear(far(100 + number), endpoint(f"45.1.2.{100 + number}", 6881))
    assert table.size == SUBNET_BUCKET_MAX
    for number in range(20):
        table.add_contact(live(far(200 + number), endpoint(f"2a00:1:2:{number}::1", 6881)))
    assert table.size == 2 * SUBNET_BUCKET_MAX
    check(table)


def test_and_so_many_in_the_table() -> None:
    table, rng = Table(OWN, 8), Random(4)
    for number in range(2000):
        table.add_contact(live(rng.randbytes(20), endpoint(f"45.1.2.{number % 255}", 1000 + number)))
        table.add_contact(live(rng.randbytes(20), private(number)))
    in_subnet = [contact for contact in table.contacts() if subnet_of(contact.endpoint) == bytes([45, 1, 2])]
    assert len(in_subnet) <= SUBNET_TABLE_MAX
    assert table.size > 100
    check(table)


def test_waiting_contacts_of_one_subnet_do_not_get_more_places_than_its_own() -> None:
    table = full()
    for number in range(REPLACEMENTS_MAX):
        table.add_contact(live(far(300 + number), endpoint(f"45.1.2.{number + 1}", 6881)))
    for number in range(8):
        contact = table.at(private(number))
        assert contact is not None
        table.remove_contact(contact)
        check(table)


def test_private_addresses_have_no_quota() -> None:
    table = Table(OWN, 8, split_bits=1)
    for number in range(8):
        table.add_contact(live(far(number), endpoint(f"192.168.1.{number + 1}", 6881)))
    assert table.size == 8


def test_nodes_of_one_process_can_share_identities() -> None:
    pool: dict[bytes, tuple[bytes, Endpoint, int]] = {}
    tables = [Table(id_of(number), 8, pool=pool) for number in (1, 2)]
    for table in tables:
        table.add_contact(live(bytes(bytearray(far(5))), Endpoint(bytes(bytearray(private(5))))))
    first, second = (next(iter(table.contacts())) for table in tables)
    assert first is not second
    assert first.id is second.id
    assert first.endpoint is second.endpoint
    assert len(pool) == 1


# Anything in any order


class Tables(RuleBasedStateMachine):
    """Few IDs and endpoints, so that they meet often."""

    @initialize(k=st.sampled_from([1, 2, 8]), bits=st.sampled_from([0, 1, 5]), pooled=st.booleans())
    def begin(self, k: int, bits: int, pooled: bool) -> None:
        self.table = Table(OWN, k, split_bits=bits, pool={} if pooled else None)
        self.now = 1.0

    ids = st.integers(0, 40).map(far) | st.integers(0, 159).map(lambda bit: id_of(1 << bit)) | st.just(OWN)
    places = (
        st.integers(0, 30).map(private)
        | st.integers(1, 12).map(lambda number: endpoint(f"45.1.2.{number}", 6881))
        | st.integers(1, 12).map(lambda number: endpoint(f"2a00::{number:x}:1", 6881))
    )

    @rule(node_id=ids, where=places)
    def hears(self, node_id: bytes, where: Endpoint) -> None:
        self.table.hear(node_id, where)

    @rule(node_id=ids, where=places)
    def meets(self, node_id: bytes, where: Endpoint) -> None:
        self.now += 1
        known = self.table.at(where)
        if known is not None and known.id == node_id:
            known.seen, known.failures = self.now, 0
            return
        stale = self.table.add_contact(live(node_id, where, self.now))
        if stale is not None:
            assert self.table.at(stale.endpoint) is stale

    @rule(where=places)
    def fails(self, where: Endpoint) -> None:
        contact = self.table.at(where)
        if contact is not None:
            self.table.failed(contact)

    @rule(where=places)
    def removes(self, where: Endpoint) -> None:
        contact = self.table.at(where)
        if contact is not None:
            self.table.remove_contact(contact)
            assert self.table.at(where) is None

    @rule(near=st.integers(0, 2**160 - 1), wanted=st.integers(1, 20), alive=st.booleans())
    def finds(self, near: int, wanted: int, alive: bool) -> None:
        expected = sorted(
            (c for c in self.table.contacts() if not alive or (c.seen and not c.failures)),
            key=lambda contact: contact.long_id ^ near,
        )
        assert self.table.nearest(near, wanted, live=alive) == expected[:wanted]

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "table"):
            check(self.table)


Tables.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestTables = Tables.TestCase
