"""First messages by the local networks' group: who is answered there, who is not, and what liars there can do."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from meshcall.core import endpoint
from meshcall.handshake import lan_gate
from meshcall.handshake.cookie import mac_key, with_macs
from meshcall.handshake.dial import LAN_ANSWER_PIECES_PER_SECOND, LAN_SENDINGS
from meshcall.handshake.events import Established, Frame, Message
from meshcall.handshake.pieces import cut
from meshcall.path.paths import LAN, Path, direct, relayed
from meshcall.wire.link import FORM_HYBRID, FORM_SECOND, encode_piece
from tests.handshake.two_links import Party, Wire

RELAY = endpoint("203.0.113.8", 443)
ELSEWHERE = direct(endpoint("192.168.1.66", 4000))
VICTIM = direct(endpoint("192.168.1.99", 53))


class Lan(Wire):
    """The wire, and a group on it that all parties listen to; a relay that hands on what goes along `by_relay`."""

    def __init__(self) -> None:
        super().__init__()
        self.trusted: dict[str, set[bytes]] = {}
        """By name: whom a party answers on the local network."""
        self.heard: list[tuple[Path, bytes]] = []
        """What went to the group."""

    def trusts(self, who: Party) -> Callable[[bytes], bool]:
        return lambda identity: identity in self.trusted.get(who.name, set())

    def trust(self, who: Party, whom: Party) -> None:
        self.trusted.setdefault(who.name, set()).add(whom.identity.public)

    def throw(self, source: Path, target: Path, datagram: bytes, delay: float | None = None) -> None:
        if target == LAN:
            self.heard.append((source, datagram))
            self.group(source, datagram)
        else:
            super().throw(source, target, datagram, delay)

    def group(self, source: Path, datagram: bytes) -> None:
        """Everybody hears it, also who sent it."""
        for party in list(self.parties.values()):
            party.links.receive_lan(self.now, source, datagram, self.trusts(party))

    def lan_dial(self, caller: Party, callee: Party, *, also_direct: bool = False) -> int:
        paths = [callee.path] if also_direct else []
        return caller.links.dial(self.now, paths, callee.callee(), lan=LAN)

    def answers(self, callee: Party) -> list[Path]:
        """To whom pieces and cookies of the callee went."""
        return [
            target for source, target, datagram in self.sent if source == callee.path and datagram[0] in (0x10, 0x11)
        ]


def three() -> tuple[Lan, Party, Party, Party]:
    wire = Lan()
    return wire, wire.party("alice"), wire.party("bob"), wire.party("carol")


def test_a_trusted_caller_is_answered_at_once_and_the_link_is_direct() -> None:
    wire, alice, bob, carol = three()
    wire.trust(bob, alice)
    number = wire.lan_dial(alice, bob)
    wire.run(0.5)
    (out,) = alice.take(Established)
    (into,) = bob.take(Established)
    assert out.link == number
    assert out.path == bob.path
    assert into.path == alice.path
    assert into.identity == alice.identity.public
    alice.links.send_message(wire.now, number, b"hello")
    wire.run(0.5)
    assert [message.data for message in bob.take(Message)] == [b"hello"]
    assert carol.links.counters["lan: for somebody else"] == 2
    assert not wire.answers(carol)


@pytest.mark.parametrize("who", ["nobody", "another"])
def test_who_is_not_trusted_hears_nothing_and_is_answered_by_the_relay_all_the_same(who: str) -> None:
    wire, alice, bob, carol = three()
    if who == "another":
        wire.trust(bob, carol)
    wire.lan_dial(alice, bob)
    wire.run(0.2)
    assert wire.heard
    assert not wire.answers(bob)
    assert bob.links.counters["lan: not trusted"] >= 1
    assert len(bob.links) == 0
    number = wire.lan_dial(alice, bob, also_direct=True)  # the same message, first by the group
    wire.run(0.5)
    assert [event.link for event in alice.take(Established)] == [number], "silence has spoilt nothing"


def test_the_group_is_spoken_to_three_times_only() -> None:
    wire, alice, bob, _ = three()
    wire.lan_dial(alice, bob)
    wire.run(15.0)
    assert len(wire.heard) == 2 * LAN_SENDINGS


def test_who_repeats_what_others_sent_is_not_answered_from_another_place() -> None:
    wire, alice, bob, _ = three()
    wire.trust(bob, alice)
    wire.lan_dial(alice, bob)
    wire.run(0.5)
    before = len(wire.answers(bob))
    for source in (ELSEWHERE, VICTIM):
        for _, datagram in wire.heard:
            bob.links.receive_lan(wire.now, source, datagram, wire.trusts(bob))
    wire.run(0.5)
    assert len(wire.answers(bob)) == before
    assert bob.links.counters["lan: first message again"] == 2
    assert len(bob.links) == 1


def test_a_message_that_the_group_hears_again_later_is_a_replay() -> None:
    wire, alice, bob, _ = three()
    wire.trust(bob, alice)
    wire.lan_dial(alice, bob)
    wire.run(0.5)
    bob.links._responder._kept.clear()  # as after 2048 others
    before = len(wire.answers(bob))
    for source in (alice.path, ELSEWHERE):
        for _, datagram in wire.heard:
            bob.links.receive_lan(wire.now, source, datagram, wire.trusts(bob))
    wire.run(0.5)
    assert len(wire.answers(bob)) == before
    assert bob.links.counters["first message replayed"] >= 2


def test_what_a_relay_brought_of_a_stranger_is_not_answered_on_the_local_network() -> None:
    """The answer is kept for repeating; the group must not get it out of the device."""
    wire, alice, bob, _ = three()
    wire.dial(alice, bob)
    wire.run(0.5)
    first = [datagram for source, _, datagram in wire.sent if source == alice.path and datagram[0] == 0x10]
    before = len(wire.answers(bob))
    for datagram in first:
        bob.links.receive_lan(wire.now, ELSEWHERE, datagram, wire.trusts(bob))
    wire.run(0.5)
    assert len(wire.answers(bob)) == before
    assert bob.links.counters["lan: not trusted"] >= 1


def forged(rng: Random, whom: Party, form: int = FORM_HYBRID) -> list[bytes]:
    """A first message that is noise, from somebody who knows the public key."""
    key = mac_key(whom.device.public)
    return [with_macs(encode_piece(piece), key, None) for piece in cut(rng.randbytes(1434), form, rng.randbytes(4))]


def test_a_flood_is_bounded_silent_and_takes_nothing_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, alice, bob, carol = three()
    wire.trust(bob, alice)
    opened = []
    work = bob.links._responder._open
    monkeypatch.setattr(bob.links._responder, "_open", lambda *args: (opened.append(wire.now), work(*args))[1])
    rng = Random(4)
    flood = [forged(rng, bob) for _ in range(200)]
    began = wire.now
    for turn in range(2000):  # 1000 messages a second, from a thousand addresses
        source = direct(endpoint(f"192.168.{rng.randrange(4)}.{rng.randrange(1, 255)}", 4000))
        for piece in flood[turn % 200]:
            bob.links.receive_lan(wire.now, source, piece, wire.trusts(bob))
        wire.now += 0.001
    seconds = wire.now - began
    assert len(opened) <= (lan_gate.PIECES_PER_SECOND * seconds + lan_gate.PIECES_BURST) / 2
    assert not bob.links.outbox, "no cookie, no answer"
    assert bob.links._responder.lan_gate.unfinished <= lan_gate.MESSAGES_MAX
    assert bob.links.counters["lan: too many"] > 3000
    wire.dial(carol, bob)
    wire.run(0.5)
    assert carol.take(Established), "a call by a relay is not hurt"
    wire.run(5.0)
    assert bob.links._responder.lan_gate.unfinished == 0


def test_one_address_cannot_use_up_what_is_for_all() -> None:
    wire, alice, bob, _ = three()
    wire.trust(bob, alice)
    rng = Random(5)
    for _ in range(500):
        for piece in forged(rng, bob):
            bob.links.receive_lan(wire.now, ELSEWHERE, piece, wire.trusts(bob))
        wire.now += 0.002
    wire.lan_dial(alice, bob)
    wire.run(0.5)
    assert alice.take(Established)


def test_answers_that_neighbours_forge_delay_no_true_one() -> None:
    """They see the index of a dial in the group, and may know the caller's public key."""
    wire, alice, bob, _ = three()
    number = wire.lan_dial(alice, bob, also_direct=True)
    wire.collect()
    index = wire.heard[0][1][5:9]
    rng = Random(6)
    key = mac_key(alice.device.public)
    for _ in range(300):
        for piece in cut(rng.randbytes(1300), FORM_HYBRID | FORM_SECOND, index):
            alice.links.receive(wire.now, ELSEWHERE, with_macs(encode_piece(piece), key, None))
    assert alice.links.counters["answer unfit"] >= 600 - LAN_ANSWER_PIECES_PER_SECOND
    wire.run(0.5)
    assert [event.link for event in alice.take(Established)] == [number]


def test_an_answer_from_elsewhere_is_taken_only_for_a_dial_to_the_group() -> None:
    wire, alice, bob, _ = three()
    number = wire.dial(alice, bob)
    wire.collect()
    index = next(datagram for source, _, datagram in wire.sent if source == alice.path)[5:9]
    for piece in cut(Random(7).randbytes(1300), FORM_HYBRID | FORM_SECOND, index):
        datagram = with_macs(encode_piece(piece), mac_key(alice.device.public), None)
        alice.links.receive(wire.now, ELSEWHERE, datagram)
        alice.links.receive(wire.now, relayed(RELAY, bytes(8)), datagram)
    assert alice.links.counters["answer unfit"] == 4
    assert number in alice.links._dials


@pytest.mark.parametrize("kind", ["second", "sealed", "cookie", "reset", "short", "empty", "classical", "noise"])
def test_everything_else_in_the_group_is_counted_and_dropped(kind: str) -> None:
    wire, alice, bob, _ = three()
    wire.trust(bob, alice)
    out, _ = wire.connect(alice, bob)
    alice.links.send_frame(wire.now, out, 32, b"voice")
    rng = Random(8)
    datagrams = {
        "second": forged(rng, bob, FORM_HYBRID | FORM_SECOND),
        "sealed": [alice.links.outbox[0][1]],
        "cookie": [b"\x11" + rng.randbytes(60)],
        "reset": [b"\x13" + rng.randbytes(16)],
        "short": [forged(rng, bob)[0][:40]],
        "empty": [b""],
        "classical": forged(rng, bob, 0),
        "noise": [bytes([0x10, *rng.randbytes(100)]) for _ in range(50)],
    }[kind]
    wire.run(0.2)
    bob.take(Frame)
    bob.links.counters.clear()
    for datagram in datagrams:
        bob.links.receive_lan(wire.now, alice.path, datagram, wire.trusts(bob))
    assert sum(bob.links.counters.values()) == len(datagrams)
    wire.run(1.0)
    assert not bob.take(Frame), "a session's packets do not come by the group"
    assert len(bob.links) == 1
