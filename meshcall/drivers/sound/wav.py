"""WAV files as microphone and loudspeaker.

Disks wait, devices must not: each file has a thread of its own that reads ahead, or writes behind, through a
bounded queue.  Positions are kept whatever happens: a block that the disk gave too late, or took too late, is
silence, and the next one is where it belongs.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.drivers.sound.base import silent
from meshcall.drivers.sound.wav_format import (
    DATA_BYTES_MAX,
    WavError,
    header,
    read_layout,
    to_mono,
)

if TYPE_CHECKING:
    from io import FileIO

    import soxr

AHEAD_BLOCKS: Final = 200
"""Read ahead of the device: 2 s, 192 kB ..."""
REFILL_BLOCKS: Final = 160
"""... and again when there are fewer than so many: to wake a thread for each block costs more than the block."""
BEHIND_BLOCKS_MAX: Final = 1000
"""Waiting for the disk: 10 s, 960 kB; more is replaced by silence."""
BEHIND_BLOCKS: Final = 25
"""So many are worth waking the thread that writes, and are written at once."""
CHUNK_SECONDS: Final = 0.1
"""Read and converted at a time."""
HEADER_EVERY_SECONDS: Final = 1.0
"""How much of a recording a killed process loses at most."""
SILENCE_BYTES_MAX: Final = 1 << 16
"""Of silence written at a time."""
CLOSE_SECONDS: Final = 5.0
"""How long `close` waits for the disk."""


class WavSource:
    """A WAV file, any rate and number of channels, as a microphone; after its end: silence, or again."""

    def __init__(self, path: Path, *, loop: bool = False, held: bool = False) -> None:
        """Opens the file and reads the first 2 seconds.  Raises WavError with the path and what would do."""
        self.name = str(path)
        self.held = held
        self.counters: Counter[str] = Counter()
        self.ended = threading.Event()
        """Set when the last sample was read (never with `loop`)."""
        self._loop = loop
        self._trouble: str | None = None
        self._file, size = _open_regular(path)
        try:
            self.layout = read_layout(self._file, size)
        except WavError as problem:
            self._file.close()
            raise WavError(f"{path} {problem}") from None
        except OSError as problem:
            self._file.close()
            raise WavError(f"{path} cannot be read: {problem.strerror}") from None
        self._ready: deque[Sound] = deque()
        self._debt = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._finished = False
        self._closed = False
        self._left = self.layout.frames
        self._rest = np.zeros(0, dtype=np.int16)
        self._resampler = _resampler(self.layout.rate)
        self._file.seek(self.layout.start)
        while len(self._ready) < AHEAD_BLOCKS and not self._finished:
            self._ready.extend(self._next_blocks())
        self._thread = threading.Thread(target=self._read_ahead, name="meshcall wav reader", daemon=True)
        if not self._finished:
            self._thread.start()

    @property
    def remark(self) -> str | None:
        """A sentence about a file that holds less than its header says."""
        missing = self.layout.promised - self.layout.frames
        if missing <= 0:
            return None
        return f"{self.name} was cut off: {missing / self.layout.rate:.1f} s of what it promises are missing"

    def read(self) -> Sound:
        """The next block, in its place in time."""
        if self.held:
            return silent()
        with self._lock:
            while self._debt and self._ready:
                self._ready.popleft()
                self._debt -= 1
            block = self._ready.popleft() if self._ready else None
            if block is None and not self._finished:
                self._debt += 1
                self.counters["late blocks"] += 1
            if len(self._ready) < REFILL_BLOCKS:
                self._changed.notify()
            if self._finished and not self._ready:
                self._debt = 0
                self.ended.set()
        return silent() if block is None else block

    def skip(self, blocks: int) -> None:
        """Leave out blocks; they are passed over as they come from the disk."""
        if not self.held:
            with self._changed:
                self._debt += blocks
                self._changed.notify()

    def trouble(self) -> str | None:
        """The file could not be read to its end."""
        return self._trouble

    def close(self) -> None:
        """End the thread and close the file."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._file.close()

    def _read_ahead(self) -> None:
        while True:
            with self._changed:
                while self._debt and self._ready:
                    self._ready.popleft()
                    self._debt -= 1
                if len(self._ready) >= AHEAD_BLOCKS:
                    while len(self._ready) >= REFILL_BLOCKS and not self._debt and not self._closed:
                        self._changed.wait()
                if self._closed or self._finished:
                    return
            blocks = self._next_blocks()
            with self._changed:
                self._ready.extend(blocks)

    def _next_blocks(self) -> list[Sound]:
        """About CHUNK_SECONDS more; sets `_finished` with the last ones."""
        layout = self.layout
        frames = min(self._left, max(1, int(layout.rate * CHUNK_SECONDS)))
        try:
            raw = self._file.read(frames * layout.frame_bytes)
        except OSError as problem:
            self._trouble = f"{self.name} cannot be read any further: {problem.strerror}"
            raw = b""
        got = len(raw) // layout.frame_bytes
        self._left -= got
        over = got < frames or self._left == 0  # got < frames: somebody shortened the file
        if over and self._loop and got == frames:
            self._file.seek(layout.start)
            self._left, over = layout.frames, False
        self._rest = np.concatenate([self._rest, self._convert(raw[: got * layout.frame_bytes], last=over)])
        whole = len(self._rest) // PULL_SAMPLES
        if over:
            whole = -(-len(self._rest) // PULL_SAMPLES)
            self._rest = np.concatenate([self._rest, np.zeros(whole * PULL_SAMPLES - len(self._rest), np.int16)])
        blocks = [self._rest[i * PULL_SAMPLES : (i + 1) * PULL_SAMPLES] for i in range(whole)]
        self._rest = self._rest[whole * PULL_SAMPLES :]
        if over:
            self._finished = True
        return blocks

    def _convert(self, raw: bytes, *, last: bool) -> Sound:
        layout = self.layout
        if layout.coding == "i16" and layout.channels == 1 and self._resampler is None:
            return np.frombuffer(raw, "<i2").astype(np.int16)  # as it is, bit for bit
        mono = to_mono(raw, layout)
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono, last=last)
        scaled: Sound = np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16)
        return scaled


class WavSink:
    """A recording: WAV, 48 kHz, mono, 16 bits; a valid file at any moment."""

    def __init__(self, path: Path, *, held: bool = False) -> None:
        """Makes the file, in place of a WAV file that is there.  Raises WavError with the path and what to do."""
        self.name = str(path)
        self.held = held
        self.counters: Counter[str] = Counter()
        self._trouble: str | None = None
        self._file = _create(path)
        self._written = 0
        self._waiting: deque[Sound | int] = deque()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._missing = 0
        self._thread = threading.Thread(target=self._write_behind, name="meshcall wav writer", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """On the disk so far."""
        return self._written / 2 / RATE

    def write(self, block: Sound) -> None:
        """Queue a block; its place is kept by silence where the disk is 10 s behind."""
        if self.held or self._trouble is not None:
            return
        with self._lock:
            if len(self._waiting) >= BEHIND_BLOCKS_MAX:
                self._missing += 1
                self.counters["blocks lost"] += 1
                return
            self._queue_missing()
            self._waiting.append(block.copy())
            if len(self._waiting) >= BEHIND_BLOCKS:
                self._changed.notify()

    def silence(self, blocks: int) -> None:
        """Queue blocks of silence; any number costs the same."""
        if self.held or self._trouble is not None:
            return
        with self._changed:
            self._missing += blocks
            if len(self._waiting) < BEHIND_BLOCKS_MAX:
                self._queue_missing()
            if len(self._waiting) >= BEHIND_BLOCKS:
                self._changed.notify()

    def trouble(self) -> str | None:
        """The recording ended early."""
        return self._trouble

    def close(self) -> None:
        """Write what waits and the final header; gives up a disk that does not answer for 5 s."""
        with self._changed:
            if len(self._waiting) < BEHIND_BLOCKS_MAX:
                self._queue_missing()
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _queue_missing(self) -> None:
        if self._missing:
            self._waiting.append(self._missing)
            self._missing = 0

    def _write_behind(self) -> None:
        header_at = 0
        with self._file:
            try:
                while items := self._next():
                    self._append(items)
                    if self._written - header_at >= HEADER_EVERY_SECONDS * RATE * 2:
                        header_at = self._written
                        self._fix_header()
            except OSError as problem:
                # What was written stays; the call goes on.
                self._end(f"the recording {self.name} ended after {self.seconds:.0f} s: {_why(problem)}")
            try:
                self._fix_header()
            except OSError as problem:
                self._end(f"the recording {self.name} could not be finished: {_why(problem)}")

    def _next(self) -> list[Sound | int]:
        """What is to be written next; nothing: that was all."""
        with self._changed:
            while len(self._waiting) < BEHIND_BLOCKS and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(BEHIND_BLOCKS, len(self._waiting)))]

    def _append(self, items: list[Sound | int]) -> None:
        """Write blocks, those that follow each other at once, and numbers of blocks of silence.  Raises OSError."""
        together: list[bytes] = []
        for item in items:
            if isinstance(item, int):
                self._write(b"".join(together))
                together.clear()
                self._write_silence(item * PULL_SAMPLES * 2)
            else:
                together.append(item.astype("<i2").tobytes())
        self._write(b"".join(together))

    def _write_silence(self, total: int) -> None:
        self._make_room(total)
        for start in range(0, total, SILENCE_BYTES_MAX):
            self._write(bytes(min(SILENCE_BYTES_MAX, total - start)))

    def _make_room(self, total: int) -> None:
        if self._written + total > DATA_BYTES_MAX:
            raise OSError(errno.EFBIG, "the file has reached the 12 hours that a WAV file can hold")

    def _write(self, data: bytes) -> None:
        self._make_room(len(data))
        while data:
            done = self._file.write(data)  # a nearly full disk takes a part
            self._written += done
            data = data[done:]

    def _fix_header(self) -> None:
        self._file.seek(0)
        self._file.write(header(self._written & ~1, RATE))
        self._file.seek(0, os.SEEK_END)

    def _end(self, sentence: str) -> None:
        with self._changed:
            self._trouble = sentence
            self._waiting.clear()


def _resampler(rate: int) -> soxr.ResampleStream | None:
    if rate == RATE:
        return None
    import soxr  # pays only where a file has another rate

    return soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")


def _open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open an ordinary file: a pipe or a device would make us wait.  Raises WavError."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as problem:
        raise WavError(f"{path} cannot be read: {_why(problem)}") from None
    state = os.fstat(number)
    if not stat.S_ISREG(state.st_mode):
        os.close(number)
        raise WavError(f"{path} is not a file")
    return open(number, "rb"), state.st_size


def _create(path: Path) -> FileIO:
    """A new file, or the same one emptied if it is a WAV file.  Raises WavError."""
    try:
        if path.exists():
            if not path.is_file():
                raise WavError(f"{path} is not a file, so nothing can be recorded to it")
            with path.open("rb") as old:
                head = old.read(4)
            if head not in (b"", b"RIFF"):
                raise WavError(f"{path} is there and is no WAV file; it is not overwritten, name another file")
        file = path.open("wb", buffering=0)
    except OSError as problem:
        raise WavError(f"{path} cannot be written: {_why(problem)}") from None
    try:
        file.write(header(0, RATE))
    except OSError as problem:
        file.close()
        raise WavError(f"{path} cannot be written: {_why(problem)}") from None
    return file


def _why(problem: OSError) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return (problem.strerror or "unknown error").lower()
