"""`meshcall devices`: which microphones and loudspeakers there are; `test`: record some seconds and play them back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from meshcall.cli.output import aligned, home_option, json_option, printable, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshcall.config import Audio
    from meshcall.drivers.files import Folders
    from meshcall.drivers.sound.meter import Level
    from meshcall.drivers.sound.ports import Inventory, Plan, Port

CONFIG_FILE: Final = "config.toml"
SECONDS_DEFAULT: Final = 3.0
SECONDS_MAX: Final = 30.0
BAR_CHARACTERS: Final = 40
BAR_FLOOR_DBFS: Final = -60.0


@click.group(name="devices", invoke_without_command=True)
@home_option
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="TOML configuration.")
@json_option
@click.pass_context
def command(context: click.Context, folders: Folders, config_file: Path | None, as_json: bool) -> None:
    """List the microphones and loudspeakers, and say which would be used ([audio] in the configuration)."""
    audio = context.obj = _audio(folders, config_file)
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("write --json at the end: meshcall devices test --json")
        return
    from meshcall.daemon.sound import choice_of, processing_of
    from meshcall.drivers.opus import NoOpusError, describe
    from meshcall.drivers.sound.duplex import default_backends
    from meshcall.drivers.sound.ports import missing, plans

    inventories = [backend.look(fresh=False) for backend in default_backends()]
    plan = plans(choice_of(audio), inventories)[0]
    remarks = missing(choice_of(audio), inventories)
    if plan.backend == "null" and not plan.chosen:
        remarks.append("there is no sound device here; files can take its place: --mic FILE.wav --speaker FILE.wav")
    if (lacks := processing_of(audio).missing) is not None:
        remarks.append(lacks)
    try:
        opus = str(describe())
        remarks.append(f"Opus: {opus}")
    except NoOpusError as problem:
        opus = None
        remarks.append(str(problem))
    result: dict[str, Any] = {
        "backends": [
            {
                "name": one.backend,
                "problem": one.problem,
                "microphones": [_port(port) for port in one.microphones],
                "speakers": [_port(port) for port in one.speakers],
            }
            for one in inventories
        ],
        "use": {
            "backend": plan.backend,
            "microphone": plan.microphone.name if plan.microphone else None,
            "speaker": plan.speaker.name if plan.speaker else None,
            "as_configured": plan.chosen,
        },
        "processing": {
            "echo_cancellation": audio.echo_cancellation,
            "noise_suppression": audio.noise_suppression,
            "automatic_gain": audio.automatic_gain,
            "available": lacks is None,
        },
        "opus": opus,
        "remarks": remarks,
    }
    show(result, lines(inventories, plan, audio, remarks), as_json=as_json)


@command.command()
@click.option("--mic", type=click.Path(path_type=Path), metavar="FILE", help="A WAV file as the microphone.")
@click.option("--speaker", type=click.Path(path_type=Path), metavar="FILE", help="A WAV file as the loudspeaker.")
@click.option("--microphone", metavar="NAME", help="This microphone, or a part of its name.")
@click.option("--loudspeaker", metavar="NAME", help="This loudspeaker, or a part of its name.")
@click.option("--backend", type=click.Choice(["auto", "sounddevice", "miniaudio", "null"]), help="The library to use.")
@click.option(
    "--seconds", type=click.FloatRange(0.5, SECONDS_MAX), default=SECONDS_DEFAULT, show_default=True, help="To record."
)
@json_option
@click.pass_context
def test(
    context: click.Context,
    /,
    mic: Path | None,
    speaker: Path | None,
    seconds: float,
    as_json: bool,
    **choice: str | None,
) -> None:
    """Record some seconds, processed as in a call, and play them back."""
    from msgspec.structs import replace

    from meshcall.daemon.sound import open_sound, processing_of
    from meshcall.drivers.sound.trial import Trial

    names = {"microphone": "microphone", "loudspeaker": "speaker", "backend": "backend"}
    audio: Audio = replace(context.obj, **{names[key]: value for key, value in choice.items() if value is not None})
    live = not as_json and sys.stderr.isatty()
    said: list[str] = []

    def told(phase: str, level: Level) -> None:
        if not as_json and phase not in said:
            said.append(phase)
            click.echo("Recording: say something." if phase == "recording" else "Playing it back.", err=True)
        if live:
            click.echo(f"\r{bar(level)}", nl=False, err=True)

    result = Trial(open_sound(audio, mic, speaker), processing_of(audio), seconds).run(told)
    if live:
        click.echo("\r" + " " * (BAR_CHARACTERS + 30) + "\r", nl=False, err=True)
    show(result, test_lines(result), as_json=as_json)


def _audio(folders: Folders, config_file: Path | None) -> Audio:
    from meshcall import config as configuration

    default = folders.config / CONFIG_FILE
    if config_file is not None:
        return configuration.load(config_file).audio
    return configuration.load(default).audio if default.exists() else configuration.Config().audio


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "rate": port.rate or None, "default": port.default}


def lines(inventories: Sequence[Inventory], plan: Plan, audio: Audio, remarks: Sequence[str]) -> list[str]:
    """The list, for people."""
    said: list[str] = []
    for one in inventories:
        said.append(f"{one.backend}:")
        if one.problem is not None:
            said.append(f"  {printable(one.problem)}")
        for what, ports in (("microphone", one.microphones), ("loudspeaker", one.speakers)):
            for port in ports:
                marks = [f"{port.rate} Hz"] if port.rate else []
                marks += ["the system's"] if port.default and port.name != "system default" else []
                said.append(f"  {what:<11}  {printable(port.name)}" + (f"  ({', '.join(marks)})" if marks else ""))
        said.append("")
    processing = [
        "echo cancellation" if audio.echo_cancellation else "",
        "" if audio.noise_suppression == "off" else f"noise suppression {audio.noise_suppression}",
        "automatic gain" if audio.automatic_gain else "",
    ]
    said += aligned(
        [
            ("Would use", printable(plan.name) if plan.backend != "null" else "silence"),
            ("Processing", ", ".join(filter(None, processing)) or "none"),
            *(("Note", printable(remark)) for remark in remarks),
        ]
    )
    return said


def test_lines(result: Mapping[str, Any]) -> list[str]:
    """The outcome of a test, for people."""
    recorded, latency, counters = result["recorded"], result["latency_ms"], result["counters"]
    lost = counters.get("overflows", 0) + counters.get("underflows", 0)
    return aligned(
        [
            ("Device", printable(result["device"])),
            ("Recorded", f"{recorded['seconds']:.1f} s, mean {recorded['level_dbfs']:.0f} dBFS, "
             f"peak {recorded['peak_dbfs']:.0f} dBFS, speech {recorded['speech']:.0%}"),
            ("Delay", f"{latency['capture']:.0f} ms in, {latency['play']:.0f} ms out, as reported"),
            ("Dropouts", str(lost)),
            *(("Note", printable(remark)) for remark in result["remarks"]),
        ]
    )  # fmt: skip


def bar(level: Level) -> str:
    """A level as a line for the terminal."""
    filled = round(BAR_CHARACTERS * (1 - max(BAR_FLOOR_DBFS, level.level_dbfs) / BAR_FLOOR_DBFS))
    filled = max(0, min(BAR_CHARACTERS, filled))
    speech = "speech" if level.speech > 0.5 else "      "
    return f"[{'#' * filled}{' ' * (BAR_CHARACTERS - filled)}] {level.level_dbfs:6.1f} dBFS {speech}"
