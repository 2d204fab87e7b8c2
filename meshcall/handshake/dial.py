"""A dial: the first message of a handshake on its way along all paths at once, until one of them answers.

The same message goes along every path, and again after a pause, so the other side sees one attempt however
often and wherever it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.errors import BadPacket, MeshcallError
from meshcall.handshake.budget import Budget
from meshcall.handshake.cookie import COOKIE_SECONDS, cookie_key, mac1_of, mac_key, open_cookie, with_macs
from meshcall.handshake.noise import IK, IK_HFS, Handshake
from meshcall.handshake.pieces import Assembler, cut
from meshcall.wire.link import FORM_HYBRID, Piece, encode_piece
from meshcall.wire.record import CAPABILITY_ML_KEM, DeviceEntry

if TYPE_CHECKING:
    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.handshake.noise import KeyPair
    from meshcall.path.paths import Path

DIAL_SECONDS: Final = 15.0
"""After so long without an answer the dial is given up."""
REPEAT_SECONDS: Final = 0.25
REPEAT_SECONDS_MAX: Final = 2.0
"""Pauses between two sendings, half as long again each time."""
PATHS_MAX: Final = 16
ANSWERS_MAX: Final = 8
"""Unfinished answers of one dial."""
ANSWER_PIECES_PER_SECOND: Final = 100.0
LAN_SENDINGS: Final = 3
"""How often a first message goes to the local networks, where everybody has to look at it."""
LAN_ANSWER_PIECES_PER_SECOND: Final = 20.0
"""From wherever on the local networks; apart from the budget above, so that a liar there delays nothing else."""
PROLOGUE: Final = b"meshcall link 1"


class DialError(MeshcallError):
    """This device cannot be called."""


@dataclass(frozen=True, slots=True)
class Callee:
    """Whom to call: a device, by what its signed record says of it."""

    static: bytes
    """Its X25519 key, 32 bytes."""
    identity: bytes | None
    """Whose device it must prove to be; None: whoever has the static key."""
    hybrid: bool
    """Whether it offers ML-KEM; if so, it is never talked to without."""

    @classmethod
    def of(cls, identity: bytes, entry: DeviceEntry) -> Callee:
        """A device in the record of an identity."""
        return cls(entry.static, identity, bool(entry.capabilities & CAPABILITY_ML_KEM))


def start_handshake(
    suite: Suite, kem: Kem | None, static: KeyPair, index: bytes, *, hybrid: bool, remote_static: bytes | None
) -> Handshake:
    """One side's handshake; `remote_static`: of the initiator's side, the callee's.

    The prologue binds version, purpose and the index that stands in the pieces; the protocol name, hashed before it,
    says whether ML-KEM takes part.
    """
    return Handshake(
        IK_HFS if hybrid else IK, suite=suite, kem=kem, initiator=remote_static is not None, prologue=PROLOGUE + index,
        static=static, remote_static=remote_static,
    )  # fmt: skip


class Dial:
    """What the initiator keeps until the answer."""

    def __init__(
        self, now: float, number: int, callee: Callee, handshake: Handshake, index: bytes, payload: bytes,
        paths: list[Path], keep_alive: float, lan: Path | None = None,
    ) -> None:  # fmt: skip
        """`lan`: goes to all devices of the local networks, and is answered from wherever the callee is there.

        Raises BadPacket where the callee's key is none.
        """
        self.number = number
        self.callee = callee
        self.handshake = handshake
        self.index = index
        self.keep_alive = keep_alive
        self.messages: list[bytes] = []
        """To be sent as soon as there is a session."""
        self.give_up_at = now + DIAL_SECONDS
        self.assembler = Assembler(ANSWERS_MAX, ANSWERS_MAX)
        self.budget = Budget(now, ANSWER_PIECES_PER_SECOND, ANSWER_PIECES_PER_SECOND)
        self._lan_budget = Budget(now, LAN_ANSWER_PIECES_PER_SECOND, LAN_ANSWER_PIECES_PER_SECOND)
        self._lan_assembler = Assembler(ANSWERS_MAX, ANSWERS_MAX)
        self._lan = lan
        self._lan_sendings = 0
        self._paths: dict[Path, tuple[bytes, float] | None] = {}  # with the cookie got there and when
        self._mac_key = mac_key(callee.static)
        self._cookie_key = cookie_key(callee.static)
        self._bodies = [
            encode_piece(piece)
            for piece in cut(handshake.write(payload), FORM_HYBRID if callee.hybrid else 0, index)
        ]  # fmt: skip
        self._first_mac = mac1_of(with_macs(self._bodies[0], self._mac_key, None))
        self._pause = REPEAT_SECONDS
        self.send_at = now
        self.sent_at = now
        """When it was first sent."""
        self.add_paths(now, paths)

    def __repr__(self) -> str:
        return f"<Dial {self.number}>"

    def add_paths(self, now: float, paths: list[Path]) -> list[Path]:
        """More ways to the callee; gives those that are new."""
        fresh = [path for path in dict.fromkeys(paths) if path not in self._paths]
        fresh = fresh[: PATHS_MAX - len(self._paths)]
        self._paths.update(dict.fromkeys(fresh))
        return fresh

    def datagrams(self, now: float, path: Path) -> list[bytes]:
        """All pieces, as they go along one path."""
        got = self._paths.get(path)
        cookie = got[0] if got is not None and now - got[1] < COOKIE_SECONDS else None
        return [with_macs(body, self._mac_key, cookie) for body in self._bodies]

    def repeat(self, now: float) -> list[tuple[Path, bytes]]:
        """Everything again, and the next time after a longer pause."""
        self.send_at = now + self._pause
        self._pause = min(1.5 * self._pause, REPEAT_SECONDS_MAX)
        paths = list(self._paths)
        if self._lan is not None and self._lan_sendings < LAN_SENDINGS:
            self._lan_sendings += 1
            paths.insert(0, self._lan)
        return [(path, datagram) for path in paths for datagram in self.datagrams(now, path)]

    def take_cookie(self, now: float, path: Path, suite: Suite, nonce: bytes, sealed: bytes) -> bool:
        """A cookie reply on one of our paths; whether it was authentic, and new enough to try with."""
        if path not in self._paths:
            return False
        cookie = open_cookie(suite, self._cookie_key, nonce, sealed, self._first_mac)
        if cookie is None:
            return False
        got = self._paths[path]
        self._paths[path] = cookie, now
        return got is None or got[0] != cookie

    def answer_piece(self, now: float, path: Path, piece: Piece) -> bytes | None:
        """A whole second message with its last piece.  Raises BadPacket.

        To a message that went to the local networks the answer comes from an address not known before.
        """
        if path in self._paths:
            assembler, budget = self.assembler, self.budget
        elif self._lan is not None:
            assembler, budget = self._lan_assembler, self._lan_budget
        else:
            raise BadPacket("answer unfit")
        if not budget.take(now):
            raise BadPacket("answer unfit")
        return assembler.add(now, path, piece)

    def expire(self, now: float) -> None:
        """Give up answers whose pieces do not come."""
        self.assembler.expire(now)
        self._lan_assembler.expire(now)

    def next_wake(self) -> float:
        """When to repeat or to give up."""
        return min(self.send_at, self.give_up_at)
