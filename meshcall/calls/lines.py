"""What calls need of the links below them; `peers.core.Peers` fulfils it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from meshcall.path.candidates import Trust
    from meshcall.path.paths import Path
    from meshcall.wire.record import DeviceEntry


class Lines(Protocol):
    """Links to other people's devices."""

    voice_links: set[int]
    """Those whose voice packets are wanted."""

    def reach(
        self, now: float, identity: bytes, *, trust: Trust | None, relayed_only: bool, keep_all: bool
    ) -> int:  # fmt: skip
        """Begin to reach somebody.  Raises UsageError while too many are under way."""
        ...

    def found(self, now: float, reach: int, devices: Iterable[DeviceEntry]) -> int:
        """Dial these devices; how many are being dialled."""
        ...

    def finish(self, now: float, reach: int) -> None:
        """No newer record will come."""
        ...

    def give_up(self, now: float, reach: int) -> None:
        """End the dials that were not answered yet."""
        ...

    def is_reaching(self, reach: int) -> bool:
        """Whether a device may still be reached."""
        ...

    def say(self, now: float, link: int, data: bytes) -> None:
        """Send a call message; lost where the link is over."""
        ...

    def send_voice(
        self, now: float, link: int, data: bytes, *, once: bool = False, is_narrow: bool = False
    ) -> tuple[Path, ...]:  # fmt: skip
        """Send a voice packet; the paths it went by, none where the link is over.

        `once`: by one path only, whatever is doubtful.  `is_narrow`: few probes.
        """
        ...

    def expect_voice(self, now: float, link: int) -> None:
        """Voice packets of a link are wanted from now on, and ours are about to flow by it."""
        ...

    def round_trip(self, link: int) -> float | None:
        """Of the best path of a link in the last seconds, not smoothed."""
        ...

    def report_loss(self, now: float, link: int, loss: float) -> None:
        """The share of our voice packets, 0 to 1, that the other side says it did not get."""
        ...

    def trust(self, now: float, link: int, trust: Trust) -> None:
        """What the other side of a link may learn from now on."""
        ...

    def close(self, now: float, link: int) -> None:
        """End a link; no event follows."""
        ...

    def end_of(self, link: int) -> tuple[bytes, bytes, Path] | None:
        """Identity, static key and path in use of an open link."""
        ...

    def heard_at(self, link: int) -> float | None:
        """When something authentic last came by a link; None: there is no such link."""
        ...

    def transcript(self, link: int) -> bytes | None:
        """What the safety words of a link come from."""
        ...
