"""Whether strangers can reach this node: the proof that ends read-only mode (BEP 43).

A query from an address to which we have sent nothing must have come through whatever stands in
front of us.  To get such queries without being in anybody's table, a read-only node asks contacts
for a *dial-back*: we ping B with `mcback` and a write token of B's; B sends a ping with `mcdial`
and our endpoint to some contact C of its own; C pings us.  Nodes that do not know these arguments
answer an ordinary ping.  One packet causes one packet, and only towards an address that has shown
(by the token) that it receives what is sent to it, so this is no amplifier.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshcall.core import Endpoint
from meshcall.dht.node_id import is_global

HOSTS_MAX = 4096
"""Addresses remembered as ones that we have sent to..."""
HOST_LIFE_SECONDS = 600.0
"""...for so long: twice what RFC 4787 (REQ-5) recommends that a NAT keeps its way open."""
TOKEN_AGE_SECONDS = 240.0
"""A request for a dial-back needs a write token that is not older."""
PROOF_LIFE_SECONDS = 3600.0
"""Without a new stranger for so long, the proof counts no more."""
ASK_SECONDS = 5.0
"""Between two requests for a dial-back while there is hope..."""
ASKS_MAX = 8
"""...and after so many of them without success:"""
ASK_AGAIN_SECONDS = 900.0
DIALS_PER_SECOND = 1.0
DIALS_BURST = 5.0


class Reach:
    """The verdict of one node.  `policy` as in the configuration: auto, yes, no."""

    __slots__ = ("_asked", "_dials", "_dials_at", "_hosts", "_proof", "behind_nat", "next_ask", "policy")

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.behind_nat: bool | None = None
        """What the outside address says (`judge`); None: not known."""
        self._proof: float | None = None
        self._hosts: dict[bytes, float] = {}
        self._asked = 0
        self.next_ask = 0.0
        """When `asks` may say yes again."""
        self._dials = DIALS_BURST
        self._dials_at = 0.0

    @property
    def reachable(self) -> bool | None:
        """True: configured, not behind a NAT, or proven; False: configured, or behind a NAT without
        proof; None: nothing is known yet."""
        if self.policy != "auto":
            return self.policy == "yes"
        if self._proof is not None:
            return True
        return None if self.behind_nat is None else not self.behind_nat

    @property
    def read_only(self) -> bool:
        """Whether to answer nobody and to say so in queries."""
        return self.reachable is False

    @property
    def watching(self) -> bool:
        """Whether it matters whom we send to."""
        return self.policy == "auto" and self.behind_nat is not False

    def reset(self) -> None:
        """We are on another network."""
        self.behind_nat = None
        self._proof = None
        self._hosts.clear()
        self._asked = 0
        self.next_ask = 0.0

    def judge(self, behind_nat: bool | None) -> None:
        """Take what the outside address says now."""
        self.behind_nat = behind_nat
        if behind_nat is False:
            self._hosts.clear()  # nobody asks for a proof, and it is a good part of a node's memory

    def sent_to(self, now: float, endpoint: Endpoint) -> None:
        """Something was sent there; what comes from there proves nothing for a while."""
        hosts, host = self._hosts, endpoint[:-2]
        hosts.pop(host, None)
        hosts[host] = now
        if len(hosts) > HOSTS_MAX:
            del hosts[next(iter(hosts))]

    def queried(self, now: float, source: Endpoint, outside: Endpoint | None) -> None:
        """A query came from there.  A neighbour on the local network proves nothing about the world outside."""
        sent = self._hosts.get(source[:-2])
        if (sent is not None and now - sent < HOST_LIFE_SECONDS) or (
            outside is not None and is_global(outside[:-2]) > is_global(source[:-2])
        ):
            return
        self._proof = now

    def expire(self, now: float) -> None:
        """Let an old proof go."""
        if self._proof is not None and now - self._proof > PROOF_LIFE_SECONDS:
            self._proof = None
            self._asked = 0

    def asks(self, now: float) -> bool:
        """Whether to ask somebody for a dial-back now."""
        if not self.read_only or self.policy != "auto" or now < self.next_ask:
            return False
        self._asked += 1
        self.next_ask = now + (ASK_SECONDS if self._asked < ASKS_MAX else ASK_AGAIN_SECONDS)
        return True

    def may_dial(self, now: float) -> bool:
        """Whether one more dial-back of ours for somebody else is within the rate."""
        self._dials = min(DIALS_BURST, self._dials + (now - self._dials_at) * DIALS_PER_SECOND)
        self._dials_at = now
        if self._dials < 1:
            return False
        self._dials -= 1
        return True


def stands_behind_nat(mappings: Iterable[str], local: Iterable[Endpoint], peer: Endpoint | None) -> bool | None:
    """What outside mappings (`observed.mapping`, by family) and local addresses tell; None: nothing yet, or we
    were never told our local addresses.

    Before anybody has told us where we are seen: a node without a public address of its own that
    talks with a public one cannot but be behind a NAT.
    """
    own = list(local)
    if not own:
        return None
    known = [mapping for mapping in mappings if mapping != "unknown"]
    if known:
        return "none" not in known
    if peer is not None and is_global(peer[:-2]) and not any(is_global(each[:-2]) for each in own):
        return True
    return None
