"""Reference speech, built from Debian packages into a folder outside the repository; never committed.

    reference.py [--out out/voice] [--set anchor]

Writes DIR/SET/ref48.wav (48 kHz, mono, 16 bit) and ref.json (where each utterance begins and ends, in seconds).
Sets: `anchor` is what the figures of the anchors were measured with, `other` has other people and sentences,
`synthetic` is spoken by espeak-ng; nothing is tuned to one of them.  Needs apt-get, dpkg, ffmpeg (Debian package
names) for the first two and espeak-ng for the third; `auto` takes the first that can be made.
Licences: the Asterisk prompts are CC-BY-SA-3.0 (Russian ones CC-BY-3.0), Tux Paint's descriptions GPL-2.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from sound import RATE, Samples, read_wav, write_wav

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "out" / "voice"
LEAD_SECONDS = 1.0
ACTIVE_LEVEL_DB = -24.0
FLOOR_DB = -78.0
"""Of the room: silence is not digital zero."""

_ASTERISK = "usr/share/asterisk/sounds/"
_TUX = "usr/share/tuxpaint/stamps/"
_EN, _IT, _FR, _RU = (f"asterisk-core-sounds-{language}-g722" for language in ("en", "it", "fr", "ru"))
_STAMPS = "tuxpaint-stamps-default"


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording inside a package, and the pause after it in seconds."""

    package: str
    file: str
    pause: float = 0.8


ALLISON, CARLO, JUNE, IVR = (
    _ASTERISK + folder for folder in ("en_US_f_Allison/", "it_IT_m_Carlo/", "fr_CA_f_June/", "ru_RU_f_IvrvoiceRU/")
)
RECORDED: dict[str, tuple[Clip, ...]] = {
    "anchor": (
        Clip(_EN, ALLISON + "agent-incorrect.g722"),
        Clip(_IT, CARLO + "agent-incorrect.g722", 0.7),
        Clip(_STAMPS, _TUX + "seasonal/hanukkah/dreydl-shin_desc_ro.ogg", 0.9),
        Clip(_RU, IVR + "pbx-invalidpark.g722", 0.7),
        Clip(_EN, ALLISON + "vm-forward-multiple.g722", 1.0),
        Clip(_IT, CARLO + "pbx-invalidpark.g722"),
        Clip(_FR, JUNE + "queue-youarenext.g722", 0.9),
        Clip(_STAMPS, _TUX + "symbols/money/canadian/coins/100loonie_desc_es.ogg", 0.7),
    ),
    "other": (
        Clip(_FR, JUNE + "agent-user.g722"),
        Clip(_STAMPS, _TUX + "symbols/money/us/coins/025quarter_desc_ro.ogg", 0.7),
        Clip(_IT, CARLO + "privacy-unident.g722", 0.9),
        Clip(_RU, IVR + "priv-introsaved.g722", 0.7),
        Clip(_STAMPS, _TUX + "symbols/money/canadian/coins/200toonie_desc_ru.ogg", 1.0),
        Clip(_EN, ALLISON + "dir-instr.g722"),
        Clip(_IT, CARLO + "demo-thanks.g722", 0.9),
        Clip(_FR, JUNE + "dir-usingkeypad.g722", 0.7),
    ),
}
SPOKEN = (
    ("en-us", 50, "The birch canoe slid on the smooth planks, and the boy was there when the sun rose."),
    ("de+f2", 45, "Wir treffen uns am Donnerstag um halb neun vor dem alten Bahnhof, wenn es nicht regnet."),
    ("fr+f4", 50, "Il faudrait acheter du pain et du fromage avant que les magasins ne ferment ce soir."),
    ("en-gb+m3", 40, "Glue the sheet to the dark blue background; it is easy to tell the depth of a well."),
    ("it+f3", 55, "Domani mattina partiamo presto, perche la strada per la montagna e ancora lunga."),
    ("es+m1", 45, "Los estudiantes llegaron tarde porque el tren de las siete no salio de la estacion."),
    ("en-us+f5", 60, "These days a chicken leg is a rare dish, and rice is often served in round bowls."),
    ("de+m7", 40, "Der Nachbar hat gestern seine Schluessel verloren und den ganzen Abend danach gesucht."),
)
SETS = (*RECORDED, "synthetic")


def _packages(names: set[str], debs: Path) -> None:
    """Have the package files in a folder."""
    missing = [name for name in sorted(names) if not list(debs.glob(f"{name}_*.deb"))]
    if missing:
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *missing], cwd=debs, check=True, stdout=sys.stderr)


def _decoded(path: Path) -> Samples:
    """A clip at 48 kHz, by ffmpeg."""
    form = ["-f", "g722"] if path.suffix == ".g722" else []
    command = ["ffmpeg", "-loglevel", "error", *form, "-i", str(path), "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.float32).astype(np.float64)


def _spoken(voice: str, pitch: int, text: str) -> Samples:
    """A sentence by espeak-ng at 48 kHz."""
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", "155", "--stdout", text]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    # The length in a header written to a pipe is a guess.
    rate = int.from_bytes(raw[24:28], "little")
    sound = np.frombuffer(raw[44 : len(raw) // 2 * 2], "<i2").astype(np.float64) / 32768
    return soxr.resample(sound, rate, RATE, "VHQ")


def _levels(sound: Samples, block: int = 480) -> Samples:
    """dB per 10 ms."""
    blocks = sound[: len(sound) // block * block].reshape(-1, block)
    return 10 * np.log10((blocks**2).mean(1) + 1e-12)


def _prepared(sound: Samples) -> Samples:
    """Trimmed to the speech, at the active level, with soft ends."""
    level = _levels(sound)
    loud = np.flatnonzero(level > level.max() - 40)
    pad = RATE // 20
    sound = sound[max(0, loud[0] * 480 - pad) : min(len(sound), (loud[-1] + 1) * 480 + pad)]
    level = _levels(sound)
    active = 10 * np.log10((10 ** (level[level > level.max() - 30] / 10)).mean())
    sound = sound * 10 ** ((ACTIVE_LEVEL_DB - active) / 20)
    ramp = np.linspace(0, 1, RATE // 100)
    sound[: len(ramp)] *= ramp
    sound[-len(ramp) :] *= ramp[::-1]
    return np.clip(sound, -0.98, 0.98)


def _clips(name: str, debs: Path) -> list[tuple[str, Samples, float]]:
    """Name, sound and pause after it of each utterance."""
    if name == "synthetic":
        return [(f"{voice}: {text}", _spoken(voice, pitch, text), 0.8) for voice, pitch, text in SPOKEN]
    clips = RECORDED[name]
    packages = {clip.package for clip in clips}
    _packages(packages, debs)
    with tempfile.TemporaryDirectory() as folder:
        for package in packages:
            subprocess.run(
                ["dpkg", "-x", str(sorted(debs.glob(f"{package}_*.deb"))[-1]), f"{folder}/{package}"], check=True
            )
        return [(Path(one.file).name, _decoded(Path(folder, one.package, one.file)), one.pause) for one in clips]


def build(name: str, out: Path = CACHE, debs: Path | None = None) -> Path:
    """The folder of a set, made if it is not there.  Raises OSError or CalledProcessError where it cannot be."""
    folder = out / name
    if (folder / "ref.json").exists():
        return folder
    parts, spans, at = [np.zeros(int(LEAD_SECONDS * RATE))], [], int(LEAD_SECONDS * RATE)
    for label, raw, pause in _clips(name, debs or out / "debs"):
        sound = _prepared(raw)
        spans.append({"clip": label, "start": at / RATE, "end": (at + len(sound)) / RATE})
        parts += [sound, np.zeros(int(pause * RATE))]
        at += len(sound) + int(pause * RATE)
    whole = np.concatenate(parts)
    whole = whole + np.random.default_rng(1).normal(0, 10 ** (FLOOR_DB / 20), len(whole))
    folder.mkdir(parents=True, exist_ok=True)
    write_wav(folder / "ref48.wav", whole)
    (folder / "ref.json").write_text(json.dumps({"set": name, "seconds": len(whole) / RATE, "utterances": spans}))
    return folder


def find(name: str, out: Path = CACHE) -> Path:
    """The folder of a set; `auto` is the first that can be made on this machine.  Raises RuntimeError."""
    wanted = SETS if name == "auto" else (name,)
    problems = []
    for one in wanted:
        try:
            return build(one, out)
        except (OSError, subprocess.CalledProcessError) as problem:
            problems.append(f"{one}: {problem}")
            shutil.rmtree(out / one, ignore_errors=True)
    raise RuntimeError("no reference speech: " + "; ".join(problems))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CACHE)
    parser.add_argument("--set", default="anchor", choices=(*SETS, "auto", "all"))
    options = parser.parse_args()
    for name in SETS if options.set == "all" else (options.set,):
        folder = find(name, options.out)
        facts = json.loads((folder / "ref.json").read_text())
        rate, sound = read_wav(folder / "ref48.wav")
        print(f"{folder}: {sound.shape[-1] / rate:.1f} s, {len(facts['utterances'])} utterances")


if __name__ == "__main__":
    main()
