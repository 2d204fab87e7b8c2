"""Opus (RFC 6716) through opuslib, on the bundled libopus or a better one (`find_library`).

opuslib finds and holds the library; its `encode` reads past short buffers and its control calls are wrong on
some machines, so the calls are declared here anew, and each checks what it hands over.  Encoder and decoder
live in memory of ours: nothing has to be freed, and a damaged packet's traces can be taken back.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from meshcall.audio.codec import RATE, SLOT_SAMPLES, Sound
from meshcall.errors import BadPacket, StateError
from meshcall.wire.coded import WHOLE, Coded, coded

LIBRARY_VARIABLE: Final = "MESHCALL_LIBOPUS"
_NAMES = ("libopus.so", "libopus.dylib", "opus.dll")
_SYSTEMS_NAME: Final = "libopus.so.0"

FRAME_BYTES_MIN: Final = 3
"""With less, libopus encodes nothing but the order to conceal."""
PACKET_BYTES_MAX: Final = 1275
"""Of one frame (RFC 6716, 3.4)."""
FRAME_SAMPLES: Final = (960, 1920, 2880)
CONCEAL_STEP_SAMPLES: Final = 120
"""2.5 ms, in which libopus counts what it is to conceal."""
SAMPLES_MAX: Final = 5760
"""120 ms, the longest packet there is."""
WIDEBAND_BELOW_BITS: Final = 36_000
"""Below so many bits per second nothing above 8 kHz is coded; full band speech wants 28 to 40 kbit/s (RFC 6716, 2.1.1).
Left alone, libopus begins to spend bits there from 14 kbit/s on, at the cost of 0.2 to 0.3 of PESQ."""
COMPLEXITY: Final = 10
COMPLEXITY_WIDE: Final = 6
"""From `WIDEBAND_BELOW_BITS` on: PESQ is the same within 0.01 for a fifth less CPU; below it loses 0.03 to 0.07."""
CONCEALMENT_COMPLEXITY: Final = 5
"""From here on a decoder with the networks conceals by them (deep PLC)."""
DEEP_STATE_BYTES: Final = 60_000
"""A decoder larger than this has the networks inside."""
LOSS_PERCENT_MAX: Final = 100

_OK: Final = 0
_APPLICATION_VOIP: Final = 2048
_SIGNAL_VOICE: Final = 3001
_BITRATE_MAX: Final = -1
_WIDEBAND: Final = 1103
_FULLBAND: Final = 1105
_SET_BITRATE: Final = 4002
_SET_MAX_BANDWIDTH: Final = 4004
_SET_VBR: Final = 4006
_SET_COMPLEXITY: Final = 4010
_SET_INBAND_FEC: Final = 4012
_SET_LOSS_PERCENT: Final = 4014
_SET_DTX: Final = 4016
_SET_SIGNAL: Final = 4024
_SET_DRED_DURATION: Final = 4050
_FRAMES_MAX: Final = 48
_CELT_ONLY: Final = 0x80
_STEREO: Final = 0x04
_REASONS: Final = {
    -1: "bad argument", -2: "buffer too small", -3: "internal error", -4: "invalid packet", -5: "not implemented",
    -6: "invalid state", -7: "out of memory",
}  # fmt: skip


class NoOpusError(StateError):
    """There is no libopus on this machine; install the package opuslib-next-bundled, or the system's libopus."""


class OpusFaultError(StateError):
    """libopus refused a call."""


@dataclass(frozen=True, slots=True)
class OpusLibrary:
    """Which libopus is used, and what it can do."""

    path: str
    version: str
    deep_plc: bool
    """Lost frames are concealed by a neural network."""
    dred: bool
    """The library knows deep redundancy; meshcall does not use it (docs/voice.md)."""

    def __str__(self) -> str:
        parts = [self.version, "deep PLC" if self.deep_plc else "no deep PLC", "DRED" if self.dred else "no DRED"]
        return f"{', '.join(parts)} ({self.path})"


def bundled() -> str | None:
    """The library file that the package opuslib-next-bundled carries; its binding is not imported."""
    found = importlib.util.find_spec("opuslib_next")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for name in _NAMES:
            path = Path(folder) / "_native" / name
            if path.is_file():
                return str(path)
    return None


def has_deep_plc(path: str) -> bool:
    """Whether this file is a libopus that conceals by a network; False as well for what cannot be loaded."""
    try:
        size = ctypes.CDLL(path)["opus_decoder_get_size"]
    except (OSError, AttributeError):
        return False
    size.restype, size.argtypes = ctypes.c_int, [ctypes.c_int]
    return bool(size(1) > DEEP_STATE_BYTES)


@cache
def _chosen(named: str) -> str:
    if named:
        return named
    carried = bundled()
    if carried is None:
        return ctypes.util.find_library("opus") or ""
    # By its name and not by find_library, which starts a process or two to ask.
    return _SYSTEMS_NAME if sys.platform == "linux" and has_deep_plc(_SYSTEMS_NAME) else carried


def find_library() -> str:
    """Which libopus to use: the one named by MESHCALL_LIBOPUS, the system's if it has deep PLC, the bundled one.

    Raises NoOpusError.
    """
    path = _chosen(os.environ.get(LIBRARY_VARIABLE, ""))
    if not path:
        raise NoOpusError
    return path


@contextmanager
def _found_as_opus(path: str) -> Iterator[None]:
    """opuslib asks the system where libopus is, at import; it is told `path`."""
    original = ctypes.util.find_library
    ctypes.util.find_library = lambda name: path if name == "opus" else original(name)
    try:
        yield
    finally:
        ctypes.util.find_library = original


def load() -> Any:
    """The package opuslib, bound to the chosen library.  Raises NoOpusError."""
    path = find_library()
    with _found_as_opus(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `is not 0` in opuslib 3.0.1
        try:
            import opuslib.api
        except Exception as problem:  # opuslib raises a bare Exception where there is no library
            raise NoOpusError(f"{path}: this is no libopus that can be loaded ({problem})") from None
    return opuslib


class _Calls:
    """The functions of libopus, declared.  Indexing a library makes function objects that opuslib does not share."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, number, word = ctypes.c_void_p, ctypes.c_int, ctypes.c_int32

        def declared(name: str, result: Any, *arguments: Any) -> Any:
            function = library[name]
            function.restype, function.argtypes = result, arguments
            return function

        self.version = declared("opus_get_version_string", ctypes.c_char_p)
        self.encoder_size = declared("opus_encoder_get_size", number, number)
        self.encoder_init = declared("opus_encoder_init", number, pointer, word, number, number)
        # Only the fixed arguments are named: the others travel differently on some machines (Apple's arm64).
        self.encoder_ctl = declared("opus_encoder_ctl", number, pointer, number)
        self.encode = declared("opus_encode", word, pointer, pointer, number, pointer, word)
        self.decoder_size = declared("opus_decoder_get_size", number, number)
        self.decoder_init = declared("opus_decoder_init", number, pointer, word, number)
        self.decoder_ctl = declared("opus_decoder_ctl", number, pointer, number)
        self.decode = declared("opus_decode", number, pointer, ctypes.c_char_p, word, pointer, number, number)
        self.samples = declared("opus_packet_get_nb_samples", number, ctypes.c_char_p, word, word)
        self.pad = declared("opus_packet_pad", number, pointer, word, word)
        self.unpad = declared("opus_packet_unpad", word, pointer, word)
        self.parse = declared(
            "opus_packet_parse", number, pointer, word, pointer, ctypes.POINTER(pointer),
            ctypes.POINTER(ctypes.c_int16), pointer,
        )  # fmt: skip


@cache
def _calls() -> _Calls:
    return _Calls(load().api.libopus)


def _checked(code: int) -> int:
    """`code`, unless it says that something failed: then OpusFaultError."""
    if code < _OK:
        raise OpusFaultError(f"libopus: {_REASONS.get(code, f'error {code}')}")
    return code


@cache
def describe() -> OpusLibrary:
    """What `meshcall devices` says of the library.  Raises NoOpusError."""
    calls = _calls()
    state = ctypes.create_string_buffer(calls.encoder_size(1))
    _checked(calls.encoder_init(state, RATE, 1, _APPLICATION_VOIP))
    has_dred = calls.encoder_ctl(state, _SET_DRED_DURATION, ctypes.c_int32(1)) == _OK
    version = calls.version().decode("utf-8", "replace")
    return OpusLibrary(find_library(), version, calls.decoder_size(1) > DEEP_STATE_BYTES, has_dred)


class OpusEncoder:
    """audio.codec.Encoder: constant bit rate, no DTX, tuned for speech.  Not for two threads at once.

    Raises NoOpusError, OpusFaultError.
    """

    def __init__(self, *, complexity: int = COMPLEXITY) -> None:
        self._calls = _calls()
        self._state = ctypes.create_string_buffer(self._calls.encoder_size(1))
        self._before = ctypes.create_string_buffer(len(self._state))
        self._out = ctypes.create_string_buffer(PACKET_BYTES_MAX + 1)
        _checked(self._calls.encoder_init(self._state, RATE, 1, _APPLICATION_VOIP))
        self._bits = 0
        self._complexity = complexity
        for request, value in (
            (_SET_VBR, 0), (_SET_DTX, 0), (_SET_SIGNAL, _SIGNAL_VOICE), (_SET_COMPLEXITY, complexity),
            (_SET_BITRATE, _BITRATE_MAX),
        ):  # fmt: skip
            self._set(request, value)

    def encode(self, sound: Sound, size: int) -> Coded:
        """One frame of 960, 1920 or 2880 samples as exactly `size` bytes.  Raises ValueError for anything else."""
        samples = len(sound)
        if sound.dtype != np.int16 or sound.ndim != 1 or samples not in FRAME_SAMPLES:
            raise ValueError(f"not a frame of sound: {sound.dtype}, {sound.shape}")
        if not FRAME_BYTES_MIN <= size < PACKET_BYTES_MAX:
            raise ValueError(f"{size} is not a length for an Opus frame")
        whole = np.ascontiguousarray(sound)  # libopus reads exactly `samples` of it
        ctypes.memmove(self._before, self._state, len(self._state))
        length = _checked(self._calls.unpad(self._out, self._packet(whole, size + 1)))
        made = coded(ctypes.string_at(self._out, length), size)
        if made is None:  # several frames in one packet, which must tell its own form
            ctypes.memmove(self._state, self._before, len(self._state))
            length = self._packet(whole, size)
            if length < size:
                _checked(self._calls.pad(self._out, length, size))
            made = Coded(WHOLE[samples // SLOT_SAMPLES - 1], ctypes.string_at(self._out, size))
        return made

    def _packet(self, whole: Sound, size: int) -> int:
        """The length of the packet in `_out`, which is not more than `size`."""
        bits = size * 8 * RATE // len(whole)
        if bits != self._bits:
            self._set(_SET_BITRATE, bits)
            wide = bits >= WIDEBAND_BELOW_BITS
            self._set(_SET_MAX_BANDWIDTH, _FULLBAND if wide else _WIDEBAND)
            self._set(_SET_COMPLEXITY, min(self._complexity, COMPLEXITY_WIDE) if wide else self._complexity)
            self._bits = bits
        return _checked(self._calls.encode(self._state, whole.ctypes.data, len(whole), self._out, size))

    def expect_loss(self, share: float, *, inband: bool) -> None:
        """How much loss to prepare for, 0 to 1, and whether each frame carries a copy of the one before (LBRR)."""
        percent = round(min(1.0, max(0.0, share)) * LOSS_PERCENT_MAX)
        self._set(_SET_LOSS_PERCENT, percent)
        self._set(_SET_INBAND_FEC, 1 if inband else 0)

    def _set(self, request: int, value: int) -> None:
        _checked(self._calls.encoder_ctl(self._state, request, ctypes.c_int32(value)))


class OpusDecoder:
    """audio.codec.Decoder: deep concealment where the library has it.  Not for two threads at once.

    Raises NoOpusError, OpusFaultError.
    """

    def __init__(self, *, complexity: int = CONCEALMENT_COMPLEXITY) -> None:
        self._calls = _calls()
        self._state = ctypes.create_string_buffer(self._calls.decoder_size(1))
        self._before = ctypes.create_string_buffer(len(self._state))
        self._kept = ctypes.create_string_buffer(len(self._state))
        self._pcm = np.empty(SAMPLES_MAX, np.int16)
        self._at = self._pcm.ctypes.data
        _checked(self._calls.decoder_init(self._state, RATE, 1))
        # Before 1.5 a decoder has no complexity, which is no fault.
        self._calls.decoder_ctl(self._state, _SET_COMPLEXITY, ctypes.c_int32(complexity))
        self.keep()

    def decode(self, frame: bytes, samples: int) -> Sound:
        """A frame; BadPacket if it is damaged or does not last `samples`."""
        self._check_duration(frame, samples)
        return self._decode(frame, samples, inband=0)

    def decode_inband(self, following: bytes, samples: int) -> Sound | None:
        """The frame lost before `following`, of the same duration; None where there is no copy.  Raises BadPacket."""
        self._check_duration(following, samples)
        return self._decode(following, samples, inband=1) if self._has_inband(following) else None

    def conceal(self, samples: int) -> Sound:
        """A guess at a lost frame.  `samples` is a multiple of 120 (2.5 ms), up to 5760; else ValueError."""
        if not 0 < samples <= SAMPLES_MAX or samples % CONCEAL_STEP_SAMPLES:
            raise ValueError(f"{samples} samples cannot be concealed")
        return self._decode(None, samples, inband=0)

    def keep(self) -> None:
        """Remember what was decoded up to now; in the place of what was remembered before."""
        ctypes.memmove(self._kept, self._state, len(self._state))

    def go_back(self) -> None:
        """As if nothing had been decoded or concealed since the last `keep`."""
        ctypes.memmove(self._state, self._kept, len(self._state))

    def _check_duration(self, frame: bytes, samples: int) -> None:
        if not 0 < len(frame) <= PACKET_BYTES_MAX or self._calls.samples(frame, len(frame), RATE) != samples:
            raise BadPacket("opus duration")

    def _decode(self, frame: bytes | None, samples: int, *, inband: int) -> Sound:
        ctypes.memmove(self._before, self._state, len(self._state))
        length = self._calls.decode(self._state, frame, len(frame) if frame else 0, self._at, samples, inband)
        if length != samples:
            ctypes.memmove(self._state, self._before, len(self._state))
            if frame is None:
                raise OpusFaultError(f"libopus: {_REASONS.get(length, f'{length} samples')}")
            raise BadPacket("opus frame")
        return self._pcm[:samples].copy()

    def _has_inband(self, packet: bytes) -> bool:
        """Whether the first frame in the packet carries LBRR (RFC 6716, 4.2.3): a bit behind those of voice activity.

        Libraries before 1.5 have no call for it.  Raises BadPacket.
        """
        if not packet or packet[0] & _CELT_ONLY:
            return False
        sizes = (ctypes.c_int16 * _FRAMES_MAX)()
        places = (ctypes.c_void_p * _FRAMES_MAX)()
        data = ctypes.create_string_buffer(packet, len(packet))
        count = self._calls.parse(data, len(packet), None, places, sizes, None)
        if count < 1:
            raise BadPacket("opus frame")
        if sizes[0] < 1 or places[0] is None:
            return False
        silk_frames = max(1, self._calls.samples(packet, len(packet), RATE) // count // 960)
        first = data.raw[places[0] - ctypes.addressof(data)]
        channels = 2 if packet[0] & _STEREO else 1
        flags = [first >> (7 - (silk_frames + 1) * n - silk_frames) & 1 for n in range(channels)]
        return any(flags)
