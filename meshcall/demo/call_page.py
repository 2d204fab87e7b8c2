"""The call of the demonstration as a page: wave forms, loss, delay, paths; nothing on it comes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from meshcall.demo.listening import RATE, Heard, outline
from meshcall.plots import STYLE, Plot, Series

if TYPE_CHECKING:
    from meshcall.demo.listening import Floats

COLUMNS = 400
Event = tuple[str, Mapping[str, Any]]


def page(
    caller: str, callee: str, events: Sequence[Event], heard: Mapping[str, Heard], result: Mapping[str, Any]
) -> str:
    """The whole page.  `events` are the caller's; `heard`: who spoke, and what arrived of it."""
    answered = next((data["seconds"] for name, data in events if name == "answered"), 0.0)
    marks = [
        (data["seconds"] - answered, f"{'direct' if data['kind'] == 'direct' else 'relay'}: {data['path']}")
        for name, data in events
        if name == "path_changed" and data["path"] is not None and data["seconds"] >= answered
    ]
    stats = [(data["talk_seconds"], data["voice"]) for name, data in events if name == "stats" and data["voice"]]
    end = result["talk_seconds"]
    cards = [_card(f"{who} speaks", _waves(who, one)) for who, one in heard.items()]
    loss = [
        Series("before repair", [(at, voice["loss"]) for at, voice in stats]),
        Series("after repair", [(at, voice["loss_after_repair"]) for at, voice in stats]),
    ]
    delay = [
        Series(name, [(at, voice["delay"][name] * 1000) for at, voice in stats])
        for name in ("total", "network", "waiting", "fixed")
    ]
    cards += [
        _card(
            "Loss", Plot("Loss", "seconds since the answer", "packets", loss, end, 0.1, percent=True, marks=marks).svg()
        ),
        _card("Delay, mouth to ear", Plot("Delay", "seconds since the answer", "ms", delay, end, marks=marks).svg()),
    ]
    tiles = [
        (f"{result['stats']['mos']:.2f}", f"estimated MOS of 4.5: {result['stats']['quality']}"),
        (f"{result['stats']['delay']['total'] * 1000:.0f} ms", "mouth to ear, estimated"),
        (f"{result['stats']['loss'] * 100:.1f} %", "loss before repair"),
        (f"{result['stats']['kbit_per_second']:.0f} kbit/s", "on the wire, each way"),
        *((f"{one.distance:.1f} dB", f"log-spectral distance, {who} as heard") for who, one in heard.items()),
    ]
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles
    )
    title = f"{caller} calls {callee}"
    steps = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{data['seconds'] * 1000:.0f} ms</td>"
        f"<td>{escape(str(data.get('path') or data.get('reason') or ''))}</td></tr>"
        for name, data in events
        if name not in ("stats", "device")
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - meshcall</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p class=faint>{escape(result['reason'])} Both nodes ran on this machine, as users "
        f'start them; the voice went through sealed links.</p><div class="tiles">{shown}</div>'
        f'<div class="plots">{"".join(cards)}</div><h2>What happened</h2><div class="wide"><table>{steps}</table></div>'
        "</body></html>\n"
    )


def _card(title: str, content: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>{content}</div>'


def _waves(who: str, one: Heard) -> str:
    series = [Series(name, _points(sound), fill=True) for name, sound in (("said", one.spoken), ("heard", one.heard))]
    return Plot(f"{who} speaks", "seconds", "level", series, one.seconds).svg()


def _points(sound: Floats) -> list[tuple[float, float]]:
    return [(len(sound) / RATE * n / COLUMNS, height) for n, height in enumerate(outline(sound, COLUMNS))]
