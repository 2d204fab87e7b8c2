"""The demonstration as a moving picture: what is done scrolls by, below it the nodes as they stand now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from meshcall.demo.view import WAY_HEAD, way_rows, way_title

if TYPE_CHECKING:
    from rich.console import RenderableType

    from meshcall.demo.swarm import Seat

Json = dict[str, Any]

PICTURES_PER_SECOND = 12
_STYLES = {"gave the record": "bold green", "named nearer nodes": "cyan", "silent": "red"}


class LiveView:
    """Use it as a context; the picture goes away at the end, the story stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0
        self._title = ""
        self._spinner: Spinner | None = None
        self._seats: Sequence[Seat] = ()
        self._asked: dict[str, str] = {}
        self._live = Live(
            console=console, refresh_per_second=PICTURES_PER_SECOND, transient=True, get_renderable=self._picture
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spinner = None
        self._seats = ()
        self._live.stop()

    def begin(self, title: str) -> None:
        """The title turns until the step is over."""
        self._number += 1
        self._title = title
        self._spinner = Spinner("dots", Text(f" {self._number}. {title}", style="bold"))

    def done(self, remark: str, seconds: float) -> None:
        """The step joins what is done."""
        self._spinner = None
        head = Text.assemble(("✓ ", "bold green"), (f"{self._number}. {self._title}", "bold"))
        self._console.print(head)
        self._console.print(Text.assemble(("     " + remark), (f"  {seconds:.2f} s", "dim")))

    def network(self, seats: Sequence[Seat]) -> None:
        """The nodes below."""
        self._seats = seats

    def way(self, who: str, whom: str, result: Json, names: Mapping[str, str | None]) -> None:
        """A table; the nodes that were asked light up below."""
        table = Table(title=way_title(who, whom, result), title_justify="left", box=SIMPLE_HEAD)
        for number, head in enumerate(WAY_HEAD):
            table.add_column(head, justify="right" if number < 2 else "left", no_wrap=True)
        self._asked = {}
        for row in way_rows(result, names):
            style = _STYLES.get(row[-1], "yellow")
            table.add_row(*row[:-1], Text(row[-1], style=style))
            self._asked[row[2]] = style
        self._console.print(table)

    def note(self, seconds: float, text: str) -> None:
        """A line above the picture."""
        self._console.print(Text.assemble((f"     {seconds * 1000:7.1f} ms  ", "dim"), text))

    def pulse(self, text: str) -> None:
        """Beside the title, until the next."""
        if self._spinner is not None:
            title = Text.assemble((f" {self._number}. {self._title}", "bold"), (f"   {text}", "cyan"))
            self._spinner.update(text=title)

    def chart(self, name: str, bars: str) -> None:
        """A coloured line."""
        self._console.print(Text.assemble((f"     {name:>9}  ", "dim"), (bars, "cyan")))

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._spinner is not None:
            parts.append(self._spinner)
        if self._seats:
            boxes = [self._box(seat) for seat in self._seats]
            note = "contacts known, records kept for others; coloured: asked in the last look-up"
            parts.append(Panel(Columns(boxes, padding=(0, 2)), title="the network", subtitle=note, style="dim"))
        return Group(*parts)

    def _box(self, seat: Seat) -> Text:
        if not seat.alive:
            return Text(f"✗ {seat.name:<8} silent        ", style="red")
        style = self._asked.get(seat.name, "default")
        kept = f"{seat.items} kept" if seat.items else ""
        return Text(f"● {seat.name:<8} {seat.contacts:>3} known {kept:<7}", style=style)
