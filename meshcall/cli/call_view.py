"""A call as a moving picture on a terminal: levels, path, loss, delay, quality in a word; above it what happened."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from meshcall.cli.call import sentence
from meshcall.cli.output import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

PICTURES_PER_SECOND = 8
METER_CELLS = 24
METER_FLOOR_DB = -60.0
_STYLES = {"excellent": "bold green", "good": "green", "fair": "yellow", "poor": "red", "bad": "bold red"}


def meter(level: float | None) -> str:
    """A bar for a level in dBFS: empty at -60, full at 0."""
    share = 0.0 if level is None else max(0.0, min(1.0, 1 - level / METER_FLOOR_DB))
    filled = round(share * METER_CELLS)
    return "█" * filled + "░" * (METER_CELLS - filled)


class CallView:
    """Use it as a context; the picture goes away at the end, what happened stays."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._stats: Mapping[str, Any] | None = None
        self._path = ""
        self._live = Live(
            console=self._console, refresh_per_second=PICTURES_PER_SECOND, transient=True, get_renderable=self._picture
        )

    def __enter__(self) -> CallView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stats = None
        self._live.stop()

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """An event of the call."""
        if event == "stats":
            self._stats = data
            return
        if event in ("path", "path_changed"):
            self._path = printable(data["path"] or "no path works at present")
        line = sentence(event, data)
        if line and event != "ended":
            self._console.print(Text.assemble((f"{data['seconds']:8.3f} s  ", "dim"), line))

    def _picture(self) -> RenderableType:
        stats = self._stats
        if stats is None:
            return Text("")
        voice = stats["voice"]
        if voice is None:
            return Text(f"{stats['state']} ...  {self._path}", style="dim")
        table = Table.grid(padding=(0, 2))
        table.add_row("you", Text(meter(voice["level_out"]), style="cyan"), "muted" if stats["muted"] else "")
        table.add_row("they", Text(meter(voice["level_in"]), style="magenta"), "on hold" if stats["held"] else "")
        word = Text(voice["quality"], style=_STYLES.get(voice["quality"], ""))
        figures = (
            f"loss {voice['loss'] * 100:.0f} %, after repair {voice['loss_after_repair'] * 100:.1f} %; "
            f"delay {voice['delay']['total'] * 1000:.0f} ms; {voice['kbit_per_second_now']:.0f} kbit/s"
        )
        minutes, seconds = divmod(int(stats["talk_seconds"]), 60)
        last = Text(f"{minutes}:{seconds:02}  {self._path}", style="dim")
        return Group(table, Text.assemble(word, "  ", figures), last)
