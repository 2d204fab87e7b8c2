"""What the sending half costs: microseconds of CPU per packet of 20 ms, and the share of a core.

    voice_cpu.py [--seconds 20]

Sound is a buzz with syllables; real Opus.  Figures are CPU time of this process, so other load hardly shows.
"""

from __future__ import annotations

import argparse
import time
from random import Random

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE
from meshcall.audio.policy import Protection
from meshcall.audio.repair import RepairDecoder, RepairEncoder
from meshcall.audio.sender import Sender
from meshcall.drivers.opus import OpusDecoder, OpusEncoder, describe
from meshcall.wire.coded import WHOLE, Coded
from meshcall.wire.voice import Cover, Report, VoicePacket, decode_voice, frame_bytes_for, is_implied

PLANS = {
    "no symbols": (),
    "a copy": (Cover(1, 1),),
    "two copies": (Cover(2, 1), Cover(3, 1)),
    "three of four frames": (Cover(1, 4),) * 3,
    "three of fifteen": (Cover(1, 15),) * 3,
}
SIZE = 121


def repair_costs(covers: tuple[Cover, ...], loss: float, count: int) -> tuple[float, float, float]:
    """Microseconds per packet of the encoder, of the decoder, and of the decoder's dearest packet."""
    chance = Random(1)
    encoder, decoder = RepairEncoder(), RepairDecoder()
    spent_out = spent_in = worst = 0.0
    for n in range(count):
        frame = chance.randbytes(frame_bytes_for(SIZE, len(covers), implied=is_implied(covers)))
        began = time.process_time()
        encoder.add(n, WHOLE[0], frame)
        possible = encoder.possible(covers)
        symbols = tuple(encoder.symbols(possible))
        spent_out += time.process_time() - began
        if chance.random() < loss:
            continue
        packet = VoicePacket(0, n, WHOLE[0], False, Report(), frame, possible, symbols)
        began = time.process_time()
        decoder.add(packet, n)
        spent = time.process_time() - began
        spent_in += spent
        worst = max(worst, spent)
    return 1e6 * spent_out / count, 1e6 * spent_in / count, 1e6 * worst


def sender_costs(covers: tuple[Cover, ...], seconds: float) -> tuple[float, float]:
    """Microseconds per packet of the whole sender, and of decoding its frames."""
    sender, decoder = Sender(0.0, OpusEncoder(), call=1, slot=0), OpusDecoder()
    sender.fix(Protection(covers, False, 0.0))
    t = np.arange(PULL_SAMPLES) / RATE
    spent = decoding = 0.0
    packets = 0
    for n in range(int(seconds * 100)):
        loud = 3000 * (1 + np.sin(n / 8))
        sound = np.round(sum(np.sin(2 * np.pi * 100 * k * t) / k for k in range(2, 20)) * loud).astype(np.int16)
        began = time.process_time()
        sender.reported(n * 0.01, Report())
        payload = sender.push(n * 0.01, sound)
        spent += time.process_time() - began
        if payload is not None:
            packets += 1
            packet = decode_voice(payload)
            began = time.process_time()
            decoder.decode(Coded(packet.config, packet.frame).packet, packet.slots * 960)
            decoding += time.process_time() - began
    return 1e6 * spent / packets, 1e6 * decoding / packets


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of sound, for each row")
    seconds = parser.parse_args().seconds
    print(f"libopus {describe()}")
    print("| symbols | sender us / packet | % of a core | repair, out | repair, in at 20 % loss | dearest | decode |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, covers in PLANS.items():
        whole, decoding = sender_costs(covers, seconds)
        out, back, worst = repair_costs(covers, 0.2, int(seconds * 50))
        print(
            f"| {name} | {whole:.0f} | {whole / 200:.1f} | {out:.0f} | {back:.0f} | {worst:.0f} | {decoding:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
