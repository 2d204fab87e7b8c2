"""WAV files as microphone and loudspeaker: every kind, every lie, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.drivers.sound.base import DeviceError
from meshcall.drivers.sound.wav import AHEAD_BLOCKS, BEHIND_BLOCKS_MAX, WavSink, WavSource
from meshcall.drivers.sound.wav_format import DATA_BYTES_MAX, WavError, header
from tests.sound.waves import tone, wav_bytes, write_wav


def read_all(source: WavSource, blocks: int) -> np.ndarray:
    """So many blocks, as a device would that leaves the disk time."""
    got = []
    for number in range(blocks):
        if number % (AHEAD_BLOCKS // 4) == 0:
            time.sleep(0.02)
        got.append(source.read())
    assert source.counters["late blocks"] == 0
    return np.concatenate(got)


def blocks_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (48_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("coding", ["u8", "i16", "i24", "i32", "f32", "f64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_sounds_the_same(coding: str, rate: int, channels: int, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.5, rate=rate), coding, rate, channels=channels)
    source = WavSource(path)
    got = read_all(source, 60) / 32768
    source.close()
    middle = slice(2_400, 21_600)
    error = got[:24_000] - tone(0.5)
    assert np.sqrt(np.mean(error[middle] ** 2)) < (0.006 if coding == "u8" else 0.001), "in time, level and place"
    assert not got[24_480:].any(), "silence after the end"
    assert source.ended.is_set()


def test_48_khz_16_bits_arrive_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(-32768, 32768, 150_000) / 32768
    source = WavSource(write_wav(tmp_path / "a.wav", values))
    got = read_all(source, 313)
    source.close()
    assert np.array_equal(got[:150_000], (values * 32768).astype(np.int16))
    assert not got[150_000:].any()


def test_extensible_headers_and_other_chunks_are_read(tmp_path: Path) -> None:
    odd = b"LIST" + (3).to_bytes(4, "little") + b"abc\0"
    source = WavSource(write_wav(tmp_path / "a.wav", tone(0.1), "i24", extensible=True, before=odd))
    assert source.layout.frames == 4800
    source.close()


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_file_written_to_a_pipe_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    source = WavSource(write_wav(tmp_path / "a.wav", tone(0.1), size=size))
    assert (source.layout.frames, source.remark) == (4800, None)
    source.close()


def test_a_cut_file_is_played_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(wav_bytes(tone(1.0))[: 44 + 48_001])
    source = WavSource(path)
    assert source.layout.frames == 24_000
    assert "0.5 s of what it promises are missing" in str(source.remark)
    source.close()


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello, I am no sound at all", "is not a WAV file"),
    "three bytes": (b"RIF", "is not a WAV file"),
    "only RIFF": (wav_bytes(tone(0.1))[:12], "no format"),
    "cut in the format": (wav_bytes(tone(0.1))[:30], "cut off"),
    "cut before the sound": (wav_bytes(tone(0.1))[:36], "ends before its sound"),
    "no sound": (wav_bytes(tone(0.0)), "holds no sound"),
    "half a sample": (wav_bytes(tone(0.1), channels=2)[:46], "holds no sound"),
    "RF64": (b"RF64" + wav_bytes(tone(0.1))[4:], "RF64"),
    "mu-law": (wav_bytes(tone(0.1), "u8", kind=7), "mu-law"),
    "12 bits": (wav_bytes(tone(0.1), bits=12), "12 bits"),
    "no channels": (
        wav_bytes(tone(0.1), channels=1, frame=0, bits=16).replace(b"\1\0\1\0\x80", b"\1\0\0\0\x80"),
        "0 channels",
    ),
    "many channels": (wav_bytes(tone(0.1)).replace(b"\1\0\1\0\x80", b"\1\0\xff\xff\x80"), "65535 channels"),
    "rate 0": (wav_bytes(tone(0.1), rate=0), "0 samples a second"),
    "rate of 4 GHz": (wav_bytes(tone(0.1), rate=0xFFFFFFFF), "samples a second"),
    "frame size": (wav_bytes(tone(0.1), frame=7), "contradicts itself"),
    "sound first": (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd" + wav_bytes(tone(0.1))[12:], "before its format"),
    "a chunk of 4 GB": (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff" + wav_bytes(tone(0.1))[12:], "no format"),
    "chunks without end": (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 10_000, "no format"),
    "a strange GUID": (wav_bytes(tone(0.1), extensible=True).replace(b"\xaa\x00\x38", b"\xaa\x11\x38"), "not known"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_refused_with_a_sentence(what: str, tmp_path: Path) -> None:
    content, expected = BAD[what]
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(WavError) as error:
        WavSource(path)
    assert str(error.value).startswith(f"{path} ")
    assert expected in str(error.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, expected in (
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / "absent.wav", "no such file"),
    ):
        with pytest.raises(DeviceError, match=expected):
            WavSource(path)
    with pytest.raises(DeviceError, match="not a file"):
        WavSink(tmp_path)
    with pytest.raises(DeviceError, match="cannot be written: no such file or directory"):
        WavSink(tmp_path / "absent" / "a.wav")


@given(st.binary(max_size=300), st.integers(0, 60))
def test_any_bytes_are_sound_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    good = wav_bytes(tone(0.01))
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(good[:at] + junk + good[at + len(junk) :])
    try:
        source = WavSource(path)
    except WavError as problem:
        assert "any.wav" in str(problem)
    else:
        assert source.read().shape == (480,)
        source.close()


def test_floats_that_are_no_numbers_are_silence_and_loud_ones_are_cut(tmp_path: Path) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 5.0, -5.0, 0.5] * 80)
    source = WavSource(write_wav(tmp_path / "a.wav", values, "f32"))
    assert source.read()[:6].tolist() == [0, 32767, -32768, 32767, -32768, 16384]
    source.close()


def test_a_huge_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.write(header(2_000_000_000, 48_000))
        file.truncate(44 + 2_000_000_000)  # sparse
    source = WavSource(path)
    assert source.layout.seconds == pytest.approx(20_833, abs=1)
    time.sleep(0.2)
    assert len(source._ready) <= AHEAD_BLOCKS + 10
    source.close()


def test_loop_goes_on_without_a_gap(tmp_path: Path) -> None:
    source = WavSource(write_wav(tmp_path / "a.wav", tone(0.1, 100)), loop=True)
    got = read_all(source, 500) / 32768
    source.close()
    assert np.allclose(got, tone(5.0, 100), atol=1e-4)
    assert not source.ended.is_set()


def test_skipped_time_is_left_out(tmp_path: Path) -> None:
    values = np.arange(480 * 600) % 30_000 / 32768
    source = WavSource(write_wav(tmp_path / "a.wav", values))
    source.read()
    source.skip(400)
    for _ in range(150):
        time.sleep(0.005)
        block = source.read()
        if block.any():
            break
    # Late blocks count as passed, too, so the position is always the number of blocks asked for.
    position = 401 + source.counters["late blocks"]
    assert block[1] / 32768 == values[480 * position + 1]
    source.close()


def test_a_file_that_shrinks_ends_early_and_quietly(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(20.0))
    source = WavSource(path)
    os.truncate(path, 48_000 * 2 * 4)
    for _ in range(2100):
        source.read()
        if _ % 50 == 0:
            time.sleep(0.005)
    assert source.ended.is_set()
    source.close()


def test_a_recording_holds_what_was_played(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    sink = WavSink(path)
    rng = np.random.default_rng(2)
    said = [rng.integers(-32768, 32768, 480).astype(np.int16) for _ in range(100)]
    sink.silence(3)
    for block in said:
        sink.write(block)
    sink.silence(250)
    sink.close()
    sink.close()
    got = blocks_of(path)
    assert len(got) == 480 * 353
    assert np.array_equal(got[1440:49_440], np.concatenate(said))
    assert not got[:1440].any() and not got[49_440:].any()
    assert sink.trouble() is None


def test_a_recording_is_valid_when_its_process_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        import numpy as np
        from meshcall.drivers.sound.wav import WavSink
        sink = WavSink(Path(sys.argv[1]))
        while True:
            for _ in range(30):
                sink.write(np.full(480, 1000, np.int16))
            time.sleep(0.02)
            print(sink.seconds, flush=True)
        """
    )
    path = tmp_path / "killed.wav"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seconds = 0.0
    while seconds < 5:
        seconds = float(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    got = blocks_of(path)
    assert len(got) / 48_000 >= seconds - 1.5
    assert (got == 1000).all()


def test_a_full_disk_ends_the_recording_with_a_sentence_and_nothing_else(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import resource, sys, time
        from pathlib import Path
        import numpy as np
        from meshcall.drivers.sound.wav import WavSink
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, 100_001))
        sink = WavSink(Path(sys.argv[1]))
        for _ in range(300):
            sink.write(np.full(480, 1000, np.int16))
        for _ in range(100):
            time.sleep(0.02)
            if sink.trouble():
                break
        for _ in range(2000):
            sink.write(np.full(480, 1000, np.int16))
        print(sink.trouble(), len(sink._waiting))
        sink.close()
        """
    )
    path = tmp_path / "full.wav"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"the recording {path} ended after 1 s: file too large 0"
    assert len(blocks_of(path)) == (100_001 - 44) // 2


def test_a_recording_ends_at_what_a_wav_file_can_hold(tmp_path: Path) -> None:
    sink = WavSink(tmp_path / "a.wav")
    sink._written = DATA_BYTES_MAX - 100
    sink.write(np.ones(480, np.int16))
    sink.close()
    assert "the 12 hours that" in str(sink.trouble())


def test_a_disk_that_does_not_answer_costs_bounded_memory_and_keeps_the_time(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    sink = WavSink(path)
    with sink._changed:  # the writer cannot take anything
        for _ in range(BEHIND_BLOCKS_MAX + 500):
            sink.write(np.ones(480, np.int16))
        sink.silence(7)
        assert len(sink._waiting) <= BEHIND_BLOCKS_MAX
    deadline = time.monotonic() + 20
    while sink._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    sink.write(np.full(480, 2, np.int16))
    sink.close()
    got = blocks_of(path)
    assert len(got) == 480 * (BEHIND_BLOCKS_MAX + 508)
    assert (got[-480:] == 2).all()
    assert sink.counters["blocks lost"] == 500


def test_only_wav_files_are_overwritten(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("dear friend")
    with pytest.raises(DeviceError, match="is no WAV file; it is not overwritten"):
        WavSink(letter)
    assert letter.read_text() == "dear friend"
    again = write_wav(tmp_path / "a.wav", tone(1.0))
    WavSink(again).close()
    assert len(blocks_of(again)) == 0


def test_held_files_do_not_move(tmp_path: Path) -> None:
    source = WavSource(write_wav(tmp_path / "a.wav", tone(0.1)), held=True)
    sink = WavSink(tmp_path / "b.wav", held=True)
    for _ in range(50):
        assert not source.read().any()
        source.skip(1)
        sink.write(np.ones(480, np.int16))
        sink.silence(1)
    source.held = sink.held = False
    assert source.read().any()
    sink.write(np.ones(480, np.int16))
    sink.close()
    source.close()
    assert len(blocks_of(tmp_path / "b.wav")) == 480
