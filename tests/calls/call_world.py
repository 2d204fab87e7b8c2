"""Whole nodes that call each other, in virtual time; voice ticks while they have a call, if asked for."""

from __future__ import annotations

import heapq
from random import Random
from typing import TypeVar

from meshcall.calls.events import CallAnswered, CallEnded, CallIncoming, CallRinging, Ending
from meshcall.calls.policy import CallPolicy
from meshcall.calls.state import State
from meshcall.core import Endpoint
from meshcall.crypto.kem import MlKem768
from meshcall.dht.config import DhtConfig
from meshcall.identity import Identity
from meshcall.node import Node
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.station import RelayPlan
from tests.node.node_world import NodeWorld

Event = TypeVar("Event")
TICK_SECONDS = 0.02


class CallWorld(NodeWorld):
    """Numbers 0 to `swarm - 1` are nobody; the others are people."""

    def __init__(self, swarm: int = 5, seed: int = 1) -> None:
        super().__init__(seed)
        self.loss = 0.0
        """Share of datagrams that are lost, for all but the DHT's."""
        self.talkers: dict[int, int] = {}
        """Nodes that send voice while they have a call, with the packets sent."""
        self._plans: dict[int, tuple[RelayPlan, PeerPolicy, CallPolicy]] = {}
        self.swarm(swarm, 10.0)

    def person_at(
        self,
        contacts: frozenset[bytes] = frozenset(),
        *,
        identity: Identity | None = None,
        with_addresses: bool = True,
        plan: RelayPlan | None = None,
        kem: bool = True,
        **policy: object,
    ) -> tuple[int, Identity]:
        """A device of a person, whose record is out; `policy` as for CallPolicy."""
        number = len(self.nodes)
        calls = CallPolicy(contacts, **policy)  # type: ignore[arg-type]
        peers = PeerPolicy(contacts, hides=calls.direct == "never")
        self._plans[number] = (plan or RelayPlan(0), peers, calls)
        self.nodes.append(self._node(number, number))
        self.events.append([])
        self.where.append(self._place(number))
        self.nodes[number].set_local_addresses(self.now, [self.where[number]])
        self.join(number)
        self.run(3.0)
        identity = self.person(number, with_addresses=with_addresses, identity=identity)
        self.run(8.0)
        return number, identity

    def _node(self, number: int, seed: int) -> Node:
        plan, peers, calls = self._plans[number]
        return Node(
            self.now, self.unix_time, rng=Random(seed), suite=self.suite, config=DhtConfig(reachable="yes"),
            kem=MlKem768(), policy=peers, plan=plan, call_policy=calls,
        )  # fmt: skip

    def restart(self, number: int, *, with_addresses: bool = True) -> None:
        """The node ends without a word and starts again with the same keys at the same place."""
        node = self.nodes[number] = self._node(number, 1000 + number)
        node.set_local_addresses(self.now, [self.where[number]])
        self.join(number)
        node.publish(self.now, self.identities[number], self.devices[number], with_addresses=with_addresses)
        self.drain(number)

    def two(self, **policy: object) -> tuple[int, int, Identity, Identity]:
        """Ann and Bob, who are each other's contacts; `policy` is Bob's."""
        identities = [Identity.new(self.suite), Identity.new(self.suite)]
        ann, anns = self.person_at(frozenset({identities[1].public}), identity=identities[0])
        bob, bobs = self.person_at(frozenset({anns.public}), identity=identities[1], **policy)
        return ann, bob, anns, bobs

    # Commands

    def call(self, caller: int, identity: Identity) -> int:
        """Call somebody."""
        number = self.nodes[caller].calls.call(self.now, identity.public)
        self.drain(caller)
        return number

    def do(self, number: int, what: str, *arguments: object, **options: object) -> None:
        """A command of the call that this node has."""
        calls = self.nodes[number].calls
        status = calls.status(self.now)
        assert status is not None, "no call"
        getattr(calls, what)(self.now, status.call, *arguments, **options)
        self.drain(number)

    def up(self, caller: int, callee: int, identity: Identity) -> tuple[int, int]:
        """A call that is up; the numbers of both sides."""
        out = self.call(caller, identity)
        self.run(2.0)
        self.last(caller, CallRinging)
        incoming = self.last(callee, CallIncoming)
        self.do(callee, "accept")
        self.run(0.5)
        assert self.state(caller) is self.state(callee) is State.UP
        assert self.last(caller, CallAnswered).call == out
        return out, incoming.call

    # What is seen

    def state(self, number: int) -> State | None:
        """Of this node's call; None: it has none."""
        status = self.nodes[number].calls.status(self.now)
        return None if status is None else status.state

    def all(self, number: int, kind: type[Event], since: float = 0.0) -> list[Event]:
        """Events of one kind."""
        return [event for _, event in self.said(number, kind, since)]  # type: ignore[misc]

    def last(self, number: int, kind: type[Event], since: float = 0.0) -> Event:
        """The latest event of one kind."""
        found = self.all(number, kind, since)
        assert found, f"no {kind.__name__}"
        return found[-1]

    def ending(self, number: int) -> Ending:
        """Why this node's latest call ended."""
        assert self.state(number) is None
        return self.last(number, CallEnded).ending

    def is_clean(self, number: int) -> bool:
        """Whether no link of any call is left."""
        peers = self.nodes[number].people.peers
        return not peers.status(self.now) and not peers.voice_links and not len(peers.links)

    # Time

    def drain(self, number: int) -> None:
        """Send and collect, with losses."""
        if self.loss and self.nodes[number].outbox:
            outbox = self.nodes[number].outbox
            outbox[:] = [one for one in outbox if one[1][:1] == b"d" or self.rng.random() >= self.loss]
        super().drain(number)

    def run(self, seconds: float) -> None:
        """Let time pass, with voice from the talkers."""
        end = self.now + seconds
        while self.talkers and self.now < end:
            for number in self.talkers:
                calls = self.nodes[number].calls
                status = calls.status(self.now)
                if status is not None and calls.send_voice(self.now, status.call, bytes([0, status.tag]) + bytes(60)):
                    self.talkers[number] += 1
                    self.drain(number)
            super().run(min(TICK_SECONDS, end - self.now))
        super().run(end - self.now)

    def delay(self, source: Endpoint, target: Endpoint, seconds: float) -> None:
        """What is under way between two places comes later."""
        moved = [
            (when + (seconds if (a, b) == (source, target) else 0.0), n, a, b, d) for when, n, a, b, d in self._heap
        ]
        self._heap[:] = moved
        heapq.heapify(self._heap)
