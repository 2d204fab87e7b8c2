"""`meshcall devices`, the configuration behind it, and the trial recording."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshcall import config
from meshcall.cli import devices
from meshcall.daemon.sound import choice_of, open_sound, processing_of
from meshcall.drivers.sound.meter import Level
from meshcall.drivers.sound.ports import SoundChoice
from meshcall.drivers.sound.trial import judged, levels
from meshcall.errors import ConfigError, UsageError
from tests.sound.pulse import PulseServer, why_not
from tests.sound.test_sound_wav import blocks_of
from tests.sound.waves import tone, write_wav


def meshcall(
    home: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    nothing = {"PULSE_SERVER": f"unix:{home}/nobody", "XDG_RUNTIME_DIR": str(home), "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "meshcall", "--home", str(home / "meshcall"), *arguments],
        env={**os.environ, **nothing, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_section_audio_has_its_defaults_in_the_commented_text() -> None:
    assert config.parse(config.DEFAULT_TEXT, "default").audio == config.Config().audio
    audio = config.parse('[audio]\nmicrophone = "USB"\nbackend = "miniaudio"\nnoise_suppression = "off"', "x").audio
    assert choice_of(audio) == SoundChoice("USB", "", "miniaudio")
    assert processing_of(audio).settings.noise_suppression == "off"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[audio]\nbackend = "jack"', "jack"),
        ('[audio]\nnoise_suppression = "loud"', "loud"),
        ('[audio]\nmicrofone = "x"', 'did you mean "microphone"?'),
        (f'[audio]\nspeaker = "{"x" * 300}"', "too long"),
        ("[audio]\necho_cancellation = 3", "echo_cancellation"),
    ],
)
def test_mistakes_in_it_are_told(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match="audio") as error:
        config.parse(text, "my.toml")
    assert sentence in str(error.value)


def test_the_list_is_for_people_and_programs_even_with_nothing_there(tmp_path: Path) -> None:
    done = meshcall(tmp_path, "devices")
    assert done.returncode == 0, done.stderr
    assert "sounddevice:" in done.stdout
    assert "miniaudio:" in done.stdout
    assert "Would use" in done.stdout
    done = meshcall(tmp_path, "devices", "--json")
    answer = json.loads(done.stdout)
    assert [one["name"] for one in answer["backends"]] == ["sounddevice", "miniaudio"]
    assert set(answer["use"]) == {"backend", "microphone", "speaker", "as_configured"}
    assert answer["processing"]["noise_suppression"] == "moderate"


def test_files_are_tried_without_hardware(tmp_path: Path) -> None:
    voice = write_wav(tmp_path / "voice.wav", tone(3.0, 300, 16_000, 0.2), "i24", 16_000, channels=2)
    (tmp_path / "quiet.toml").write_text(
        '[audio]\necho_cancellation = false\nnoise_suppression = "off"\nautomatic_gain = false'
    )
    out = tmp_path / "out.wav"
    done = meshcall(
        tmp_path, "devices", "--config", str(tmp_path / "quiet.toml"),
        "test", "--mic", str(voice), "--speaker", str(out), "--seconds", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["recorded"]["seconds"] == 1.0
    assert answer["recorded"]["peak_dbfs"] == pytest.approx(-14.0, abs=0.3)
    assert answer["recorded"]["level_dbfs"] == pytest.approx(-17.0, abs=0.3)
    assert answer["remarks"] == []
    heard = blocks_of(out)
    loud = np.flatnonzero(np.abs(heard.astype(int)) > 2000)
    assert (loud[-1] - loud[0]) / 48_000 == pytest.approx(1.0, abs=0.05), "what was recorded was played back"


def test_null_says_that_it_hears_nothing(tmp_path: Path) -> None:
    done = meshcall(tmp_path, "devices", "test", "--backend", "null", "--seconds", "0.5")
    assert done.returncode == 0, done.stderr
    assert "no sound device" in done.stdout
    assert "pure silence" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["devices", "test", "--mic", "absent.wav"], "absent.wav cannot be read: no such file or directory"),
        (["devices", "test", "--seconds", "4000"], "4000"),
        (["devices", "test", "--backend", "jack"], "jack"),
        (["devices", "--config", "absent.toml"], "there is no such file"),
        (["devices", "--json", "test"], "meshcall devices test --json"),
    ],
)
def test_mistakes_on_the_command_line_are_sentences(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = meshcall(tmp_path, *arguments)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_one_file_cannot_be_both(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.1))
    with pytest.raises(UsageError, match="microphone and loudspeaker at once"):
        open_sound(config.Audio(), path, tmp_path / "." / "a.wav")
    assert len(blocks_of(path)) == 4800, "nothing was overwritten"


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.xdist_group("sound")
def test_real_devices_are_listed_and_tried(tmp_path: Path) -> None:
    voice = write_wav(tmp_path / "voice.wav", tone(20.0, 300, 48_000, 0.2))
    with PulseServer(tmp_path) as server:
        environment = server.environment("cable", "cable_out")
        answer = json.loads(meshcall(tmp_path, "devices", "--json", environment=environment).stdout)
        assert answer["use"]["backend"] == "sounddevice"
        assert any("Null Output" in one["name"] for one in answer["backends"][1]["speakers"])
        done = meshcall(
            tmp_path, "devices", "test", "--mic", str(voice), "--loudspeaker", "Null Output", "--seconds=1", "--json",
            environment=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout)
    assert "Null Output" in tried["device"]
    assert tried["as_configured"]
    assert tried["recorded"]["peak_dbfs"] > -30


def test_levels_and_what_is_said_of_them() -> None:
    full = (tone(1.0, 1000, level=1.0) * 32767).astype(np.int16)
    assert levels(full) == {"seconds": 1.0, "level_dbfs": -3.0, "peak_dbfs": 0.0}
    assert "too loud" in judged(full)[0]
    assert "pure silence" in judged(np.zeros(4800, np.int16))[0]
    assert "hardly anything" in judged((full / 2000).astype(np.int16))[0]
    assert judged((full / 8).astype(np.int16)) == []


def test_the_bar_keeps_its_width() -> None:
    widths = {len(devices.bar(Level(db, db, speech, 0))) for db in (-90.0, -60.0, -33.3, 0.0) for speech in (0.0, 1.0)}
    assert len(widths) == 1
