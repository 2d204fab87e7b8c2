"""The plainest sender and receiver there can be: until the real ones are here, and to try the bench itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from meshcall.drivers.opus import load
from meshcall.wire.voice import Report, VoicePacket, decode_voice, encode_voice


class StandInSender:
    def __init__(self, size: int = 110) -> None:
        self.api = load().api
        self.encoder = self.api.encoder.create_state(48000, 1, 2048)
        self.api.encoder.encoder_ctl(self.encoder, self.api.ctl.set_vbr, 0)
        self.api.encoder.encoder_ctl(self.encoder, self.api.ctl.set_bitrate, size * 400)
        self.telling = Report()
        self.blocks: list[Any] = []
        self.slot = 0

    def push(self, now: float, sound: Any) -> bytes | None:
        self.blocks.append(sound)
        if len(self.blocks) < 2:
            return None
        whole, self.blocks = np.concatenate(self.blocks), []
        frame = self.api.encoder.encode(self.encoder, whole.tobytes(), 960, 1000)
        self.slot += 1
        return encode_voice(VoicePacket(1, self.slot, 1, False, self.telling, bytes(frame)))

    def reported(self, now: float, report: Report) -> None:
        pass


class StandInReceiver:
    def __init__(self, wait: float = 0.03) -> None:
        self.api = load().api
        self.decoder = self.api.decoder.create_state(48000, 1)
        self.wait, self.began, self.frames, self.next = wait, None, {}, 0
        self.left = np.zeros(0, np.int16)

    def push(self, now: float, payload: bytes) -> None:
        packet = decode_voice(payload)
        if self.began is None:
            self.began, self.next = now + self.wait, packet.slot
        self.frames[packet.slot] = packet.frame

    def pull(self, now: float) -> Any:
        if len(self.left) < 480 and self.began is not None and now >= self.began:
            frame = self.frames.pop(self.next, None)
            self.next += 1
            raw = self.api.decoder.decode(self.decoder, frame, len(frame) if frame else 0, 960, False, 1)
            self.left = np.concatenate([self.left, np.frombuffer(raw, np.int16)])
        if len(self.left) < 480:
            return np.zeros(480, np.int16)
        out, self.left = self.left[:480], self.left[480:]
        return out

    def report(self) -> Report:
        return Report()

    def heard(self) -> Report | None:
        return None
