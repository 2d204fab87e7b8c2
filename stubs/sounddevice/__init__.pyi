# What meshcall uses of sounddevice 0.5.
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

class _Device(TypedDict):
    name: str
    index: int
    hostapi: int
    max_input_channels: int
    max_output_channels: int
    default_low_input_latency: float
    default_low_output_latency: float
    default_high_input_latency: float
    default_high_output_latency: float
    default_samplerate: float

class _HostApi(TypedDict):
    name: str
    devices: list[int]
    default_input_device: int
    default_output_device: int

class PortAudioError(Exception): ...

class CallbackFlags:
    input_underflow: bool
    input_overflow: bool
    output_underflow: bool
    output_overflow: bool

class _StreamBase:
    @property
    def samplerate(self) -> float: ...
    @property
    def latency(self) -> float | tuple[float, float]: ...
    def start(self) -> None: ...
    def stop(self, ignore_errors: bool = True) -> None: ...
    def abort(self, ignore_errors: bool = True) -> None: ...
    def close(self, ignore_errors: bool = True) -> None: ...

class _default:
    device: Sequence[int]

default: _default

class InputStream(_StreamBase):
    def __init__(
        self,
        *,
        samplerate: float,
        blocksize: int,
        device: int | None,
        channels: int,
        dtype: str,
        latency: str | float,
        callback: Callable[..., None],
        finished_callback: Callable[[], None],
    ) -> None: ...

class OutputStream(InputStream): ...

class Stream(_StreamBase):
    def __init__(
        self,
        *,
        samplerate: float,
        blocksize: int,
        device: tuple[int, int],
        channels: int,
        dtype: str,
        latency: str | float,
        callback: Callable[..., None],
        finished_callback: Callable[[], None],
    ) -> None: ...

def query_devices() -> Sequence[_Device]: ...
def query_hostapis() -> Sequence[_HostApi]: ...
def _initialize() -> None: ...
def _terminate() -> None: ...
