"""The table of decisions, and the line of sound: concealment, comfort noise, the way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from meshcall.audio.codec import PULL_SAMPLES, SLOT_SAMPLES, Sound
from meshcall.audio.jitter import Frame
from meshcall.audio.noise import Background
from meshcall.audio.playout import HURRY_SAMPLES, NOISE_ALONE, PATIENCE, PERIOD_BEGINS, Delay, Do, Has, Line, decide
from tests.audio.paper_codec import MADE_UP, PaperDecoder, paper_frame


def test_there_is_a_decision_for_everything() -> None:
    for has, delay, previous, noise in itertools.product(Has, Delay, Do, (False, True)):
        do = decide(has, delay, previous, noise=noise)
        assert isinstance(do, Do)
        # Only a frame that is there is played; what is not there is made up, copied, or passed over.
        plays = do in (Do.NORMAL, Do.ACCELERATE, Do.EXPAND, Do.MERGE)
        assert not plays or has is Has.NEXT
        assert do is not Do.CONCEAL or has in (Has.LATER, Has.COPY)
        assert do is not Do.WAIT


@pytest.mark.parametrize(
    ("has", "delay", "previous", "do"),
    [
        (Has.NEXT, Delay.RIGHT, Do.NORMAL, Do.NORMAL),
        (Has.NEXT, Delay.RIGHT, Do.CONCEAL, Do.NORMAL),
        (Has.NEXT, Delay.RIGHT, Do.FLUSH, Do.MERGE),
        (Has.NEXT, Delay.SHORT, Do.HOLD, Do.MERGE),
        (Has.NEXT, Delay.LONG, Do.WAIT, Do.MERGE),
        (Has.LATER, Delay.RIGHT, Do.NORMAL, Do.CONCEAL),
        (Has.LATER, Delay.SHORT, Do.NORMAL, Do.HOLD),
        (Has.COPY, Delay.LONG, Do.NORMAL, Do.RECOVER),
        (Has.COVERED, Delay.RIGHT, Do.HOLD, Do.SKIP),
        (Has.HOPED, Delay.RIGHT, Do.NORMAL, Do.HOLD),
        (Has.HOPED, Delay.FAR, Do.NORMAL, Do.FLUSH),
        (Has.NOTHING, Delay.LONG, Do.NORMAL, Do.HOLD),
    ],
)
def test_decisions(has: Has, delay: Delay, previous: Do, do: Do) -> None:
    assert decide(has, delay, previous, noise=False) is do


def test_after_comfort_noise_a_frame_is_merged() -> None:
    assert decide(Has.NEXT, Delay.RIGHT, Do.HOLD, noise=True) is Do.MERGE


def test_a_frame_that_is_only_late_is_decoded_as_if_it_had_not_been() -> None:
    decoder = PaperDecoder()
    line = Line(decoder)
    line.frame(Frame(0, 1, paper_frame(0), 0, False, False), Do.NORMAL, 0, 0.0)
    line.make_up(PULL_SAMPLES, staying=True)
    line.make_up(PULL_SAMPLES, staying=True)
    line.frame(Frame(1, 1, paper_frame(1), 0, False, False), Do.MERGE, 0, 0.0)
    assert decoder.went_back == 1 and decoder.decoded == [0, 1]
    line.make_up(PULL_SAMPLES, staying=True)
    line.pass_over()
    line.frame(Frame(3, 1, paper_frame(3), 0, False, False), Do.MERGE, 0, 0.0)
    assert decoder.went_back == 1  # what was lost stays lost


def test_made_up_sound_leads_into_what_follows_and_leaves_no_trace_in_the_decoder() -> None:
    decoder = PaperDecoder()
    line = Line(decoder)
    line.frame(Frame(0, 1, paper_frame(0), 0, False, False), Do.NORMAL, 0, 0.0)
    line.make_up(SLOT_SAMPLES)
    line.lead_in(SLOT_SAMPLES, Frame(2, 1, paper_frame(2), 0, False, False))
    line.lead_in(SLOT_SAMPLES, Frame(2, 1, b"damaged", 0, False, False))
    assert decoder.decoded == [0] and decoder.tried == [2] and decoder.went_back == 2
    sound = taken(line)
    assert len(sound) == 2 * SLOT_SAMPLES
    assert sound[SLOT_SAMPLES] < 0 and sound[-1] > 900  # of paper, a frame is alike at any lag


def test_while_somebody_speaks_delay_is_taken_out_only_after_ten_seconds_without_a_rest() -> None:
    line = Line(PaperDecoder())
    cut = []
    for slot in range(600):
        before = line.accelerated
        frame = Frame(slot, 1, paper_frame(slot), 0, False, False)
        line.frame(frame, Do.ACCELERATE, PATIENCE // 100, 100.0)
        taken(line)
        if line.accelerated > before:
            cut.append(slot)
    assert len(cut) > 3
    assert cut[0] * SLOT_SAMPLES >= PATIENCE - SLOT_SAMPLES
    hurry = Line(PaperDecoder())
    for slot in range(100):
        frame = Frame(slot, 1, paper_frame(slot), 0, False, False)
        hurry.frame(frame, Do.ACCELERATE, HURRY_SAMPLES[Do.ACCELERATE], 300.0)
        taken(hurry)
    assert hurry.accelerated > 0


class PausingDecoder(PaperDecoder):
    """A quiet room, a loud voice from slot 100 on, and a pause of so many slots from 200 on."""

    def __init__(self, pause: int) -> None:
        super().__init__()
        self.chance = np.random.default_rng(3)
        self.pause = pause

    def decode(self, frame: bytes, samples: int) -> Sound:
        slot, _ = self._open(frame)
        is_voice = 100 <= slot < 200 or slot >= 200 + self.pause
        return np.round(self.chance.normal(0, 3000 if is_voice else 8, samples)).astype(np.int16)


def test_a_rest_of_100_ms_is_long_enough_to_take_delay_out_cheaply_and_a_pause_between_words_is_not() -> None:
    cut = {}
    for pause in (4, 8):
        line = Line(PausingDecoder(pause))
        for slot in range(260):
            do = Do.ACCELERATE if slot >= 200 else Do.NORMAL
            line.frame(Frame(slot, 1, paper_frame(slot), 0, False, False), do, SLOT_SAMPLES // 2, 6.0)
            taken(line)
        cut[pause] = line.accelerated
    assert cut[4] == 0 < cut[8]


class VoicedDecoder(PaperDecoder):
    """A voice of 100 Hz that goes on from frame to frame."""

    def decode(self, frame: bytes, samples: int) -> Sound:
        slot, _ = self._open(frame)
        at = slot * SLOT_SAMPLES + np.arange(samples)
        return np.round(3000 * np.sin(2 * np.pi * at / 480) + 1000 * np.sin(2 * np.pi * at / 160)).astype(np.int16)


def test_while_a_frame_is_late_the_last_period_is_said_again_and_goes_on_into_the_frame() -> None:
    line = Line(VoicedDecoder())
    for slot in range(5):
        line.frame(Frame(slot, 1, paper_frame(slot), 0, False, False), Do.NORMAL, 0, 0.0)
    taken(line)
    for _ in range(8):
        line.make_up(PULL_SAMPLES, staying=True)
    made = taken(line).astype(float)
    assert np.all(made[:PERIOD_BEGINS] == MADE_UP)  # short holds are the decoder's
    again = made[PERIOD_BEGINS + PULL_SAMPLES :]
    assert np.corrcoef(again[:-480], again[480:])[0, 1] > 0.99
    assert 0.6 < again[-480:].std() / 2236 < 0.75  # 80 ms later it is a third softer
    assert line.noise  # so the frame is merged with it
    line.frame(Frame(5, 1, paper_frame(5), 0, False, False), Do.MERGE, 0, 0.0)
    assert not line.noise
    assert np.abs(np.diff(np.concatenate([again, taken(line)]))).max() < 150


def test_what_is_lost_is_concealed_by_the_decoder_alone() -> None:
    line = Line(VoicedDecoder())
    for slot in range(5):
        line.frame(Frame(slot, 1, paper_frame(slot), 0, False, False), Do.NORMAL, 0, 0.0)
    taken(line)
    line.make_up(4 * SLOT_SAMPLES)
    assert np.all(taken(line) == MADE_UP)


class NoisyDecoder(PaperDecoder):
    """Speech whose background is noise of a low pitch, 60 steps of rms."""

    def __init__(self) -> None:
        super().__init__()
        self._chance = np.random.default_rng(8)

    def decode(self, frame: bytes, samples: int) -> Sound:
        self._open(frame)
        white = self._chance.normal(0, 1, samples + 7)
        low = np.convolve(white, np.ones(8) / np.sqrt(8), "valid")
        return np.round(60 * low).astype(np.int16)


def taken(line: Line) -> Sound:
    out = [np.zeros(0, np.int16)]
    while line.ready >= PULL_SAMPLES:
        out.append(line.take())
    return np.concatenate(out)


def test_made_up_sound_becomes_noise_like_the_background_and_goes_on() -> None:
    line = Line(NoisyDecoder())
    for slot in range(150):
        line.frame(Frame(slot, 1, paper_frame(slot), 0, False, False), Do.NORMAL, 0, 0.0)
    room = taken(line)[48_000:].astype(float)
    line.make_up(48_000 * 2)
    made = taken(line).astype(float)
    assert np.all(made[:4800] == MADE_UP)
    noise = made[NOISE_ALONE + SLOT_SAMPLES :]
    assert 0.7 < noise.std() / room.std() < 1.4
    colour = [np.abs(np.fft.rfft(one[:48_000])) ** 2 for one in (room, noise)]
    low = [one[:6000].sum() / one.sum() for one in colour]
    assert low[1] == pytest.approx(low[0], abs=0.1)
    # No seam between the blocks of noise: steps over their edges are as steps elsewhere.
    steps = np.abs(np.diff(noise))
    assert steps[PULL_SAMPLES - 1 :: PULL_SAMPLES].mean() < 1.3 * steps.mean()


def test_the_first_frame_after_noise_fades_in() -> None:
    line = Line(PaperDecoder())
    line.frame(Frame(0, 1, paper_frame(500), 0, False, False), Do.NORMAL, 0, 0.0)
    line.make_up(48_000)
    taken(line)
    assert line.noise
    line.frame(Frame(1, 1, paper_frame(500), 0, False, False), Do.MERGE, 0, 0.0)
    sound = taken(line)
    assert not line.noise
    assert sound[0] < 100 and sound[300] == 1500
    assert np.abs(np.diff(sound.astype(int))).max() < 100


def test_speech_is_no_background() -> None:
    background = Background()
    chance = np.random.default_rng(2)
    for n in range(500):
        loud = n % 10 < 7
        sound = np.round(chance.normal(0, 3000 if loud else 20, SLOT_SAMPLES)).astype(np.int16)
        quiet = background.listen(sound)
        assert not (loud and quiet)
    noise = np.concatenate([background.make() for _ in range(50)])
    assert 12 < noise[SLOT_SAMPLES:].astype(float).std() < 30


def test_digital_silence_is_quiet_and_makes_silence() -> None:
    background = Background()
    for _ in range(10):
        assert background.listen(np.zeros(SLOT_SAMPLES, np.int16))
    assert not background.make().any()
