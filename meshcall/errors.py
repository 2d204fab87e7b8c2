"""Errors.  The docstring of each class is the sentence that a user reads when nothing more exact is known.

Two kinds never mix: what a stranger sent us (`BadPacket`, counted and dropped by the core that
receives it), and what our own user or program did (everything else, shown to them).
"""

from __future__ import annotations


class MeshcallError(Exception):
    """Something went wrong in meshcall."""

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip()


class BadPacket(Exception):  # noqa: N818 - the name says what it is about: a packet, not us
    """A datagram or a part of one that does not keep to its format.

    `reason` is a short fixed word under which the packet is counted, never text from the packet.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UsageError(MeshcallError):
    """This command cannot be carried out as it was given."""


class AddressError(MeshcallError):
    """This is not a meshcall address."""


class ConfigError(MeshcallError):
    """The configuration file cannot be used."""


class StateError(MeshcallError):
    """The files of this node cannot be used."""


class DaemonError(MeshcallError):
    """The node daemon cannot be reached."""
