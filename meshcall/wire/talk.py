"""Call messages: offer, ring, accept and the others.  On the control stream of a link, in docs/calls.md in words."""

from __future__ import annotations

from typing import Final

MESSAGE_TALK: Final = 0x54
"""First byte of a call message on a link's control stream."""
