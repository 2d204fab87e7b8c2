"""What the clients of PCP and NAT-PMP share: they ask the gateway's port 5351, ask again, and end with an outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from meshcall.core import Endpoint
from meshcall.errors import BadPacket
from meshcall.portmap.grant import Denial, Exits, Gateway, Outcome, Tries

SERVER_PORT: Final = 5351
ANNOUNCE_PORT: Final = 5350
"""Gateways that lost their state tell 224.0.0.1 at this port (RFC 6886 section 3.2.1, RFC 6887 section 14.1)."""


class PortClient(ABC):
    """Asks one gateway for one mapping; `outcome` says what came of the last question."""

    name = ""

    def __init__(self, gateway: Gateway, port: int, exits: Exits) -> None:
        self._gateway, self._port, self._exits = gateway, port, exits
        self._tries = Tries(())
        self._deleting = False
        self.outcome: Outcome | None = None
        self.restarted = False
        """The gateway lost its state, or has another address; to be read and cleared by the mapper."""

    def refused(self, now: float) -> None:
        """The gateway's system says that nothing listens there (ICMP port unreachable)."""
        if self._tries.due is not None:
            self._finish(Denial(f"{self.name} port closed"))

    def wake(self, now: float) -> None:
        """Ask again, or give up."""
        if self._tries.due is not None and now >= self._tries.due:
            if self._tries.again(now):
                self._send()
            else:
                self._finish(Denial(f"{self.name} no answer"))

    def next_wake(self) -> float | None:
        """When to ask again."""
        return self._tries.due

    @abstractmethod
    def _send(self) -> None:
        """Put the question into the outbox."""

    def _check_source(self, source: Endpoint) -> None:
        if source != self._gateway.at(SERVER_PORT):
            raise BadPacket("wrong source")

    def _finish(self, outcome: Outcome) -> None:
        self._tries.end()
        self.outcome = outcome
