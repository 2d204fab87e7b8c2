# What meshcall uses of miniaudio 1.6 and 1.7.
from collections.abc import Generator
from enum import Enum
from typing import Any, TypedDict

class _Format(TypedDict):
    format: str
    samplerate: int
    channels: int

class _Info(TypedDict):
    name: str
    id: Any
    formats: list[_Format]

lib: Any

class MiniaudioError(Exception): ...

class SampleFormat(Enum):
    SIGNED16 = ...

class Backend(Enum): ...

class Devices:
    backend: str
    def __init__(self, backends: list[Backend] | None = None) -> None: ...
    def get_playbacks(self) -> list[_Info]: ...
    def get_captures(self) -> list[_Info]: ...

class AbstractDevice:
    backend: str
    def start(self, callback_generator: Generator[Any, Any, None]) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...

class CaptureDevice(AbstractDevice):
    def __init__(
        self,
        input_format: SampleFormat = ...,
        nchannels: int = 2,
        sample_rate: int = 44100,
        buffersize_msec: int = 200,
        device_id: Any = None,
        callback_periods: int = 0,
        backends: list[Backend] | None = None,
        *,
        app_name: str = "",
    ) -> None: ...

class PlaybackDevice(AbstractDevice):
    def __init__(
        self,
        output_format: SampleFormat = ...,
        nchannels: int = 2,
        sample_rate: int = 44100,
        buffersize_msec: int = 200,
        device_id: Any = None,
        callback_periods: int = 0,
        backends: list[Backend] | None = None,
        *,
        app_name: str = "",
    ) -> None: ...

class DuplexStream(AbstractDevice):
    def __init__(
        self,
        playback_format: SampleFormat = ...,
        playback_channels: int = 2,
        capture_format: SampleFormat = ...,
        capture_channels: int = 2,
        sample_rate: int = 44100,
        buffersize_msec: int = 200,
        playback_device_id: Any = None,
        capture_device_id: Any = None,
        callback_periods: int = 0,
        backends: list[Backend] | None = None,
        *,
        app_name: str = "",
    ) -> None: ...

def is_backend_enabled(backend: Backend) -> bool: ...
