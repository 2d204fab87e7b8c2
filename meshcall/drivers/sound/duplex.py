"""The sound device of a call: the one that was chosen, or what works instead, without a pause for the call.

While the chosen device is being opened, and from the moment it fails, the null device keeps the 10 ms clock
going, so that `exchange` is called whatever happens.  All that may wait (looking, opening, closing) is done
by a thread that is given up when it hangs; a supervisor looks at the device in use ten times a second (twice,
where no hardware is wanted):

    fails            -> null at once (<= 0.5 s to notice + 0.1 s), then the best of `ports.plans` that gives sound
    is not the chosen one -> every 2 s and more, look whether a better one is there; change when it gives sound
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.drivers.sound.base import COUNTERS_MAX, DeviceError, Latency, Sink, Source, silent
from meshcall.drivers.sound.null import Discard, Silence
from meshcall.drivers.sound.ports import Inventory, Plan, SoundChoice, missing, plans
from meshcall.drivers.sound.timed import TimedDevice

if TYPE_CHECKING:
    from meshcall.audio.codec import Sound
    from meshcall.drivers.sound.base import Device, Exchange
    from meshcall.drivers.sound.ports import Backend

CHECK_SECONDS: Final = 0.1
CHECK_FILES_SECONDS: Final = 0.5
"""Where no hardware is wanted: the clock of the computer does not fail."""
LIFE_CALLS: Final = 20
LIFE_WITHIN_SECONDS: Final = 0.3
LIFE_SECONDS: Final = 4.0
"""A device is taken when it asked for so many blocks in so short a time, and given up when it did not after
LIFE_SECONDS: a sound server may fill its buffers, and then be quiet for 2 s, before it runs."""
JOB_SECONDS: Final = 6.0
"""A thread that opens or closes for longer hangs."""
CLOSE_ATTEMPTS: Final = 10
"""Each as long as the backend waits for itself (1 s)."""
HUNG_MAX: Final = 3
"""Threads that may hang; with so many nothing more is tried."""
LOOK_SECONDS: Final = 2.0
LOOK_SECONDS_MAX: Final = 15.0
"""Between looks for a better device: half as long again each time nothing better came of it."""
BAN_SECONDS: Final = 5.0
BAN_SECONDS_MAX: Final = 60.0
"""How long a device that failed is not tried again: doubled each time."""
BANS_MAX: Final = 64
"""Devices remembered as failed."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Another device is in use, or something is to be said about it."""

    device: str
    """Its name."""
    backend: str
    chosen: bool
    """It is what the user wants."""
    why: str | None
    """A sentence: what is wrong with the one before, or with a file, or with a name."""


OnChanged = Callable[[Changed], None]


def default_backends() -> list[Backend]:
    """What there is for hardware, best first."""
    from meshcall.drivers.sound.mini import MiniAudio
    from meshcall.drivers.sound.portaudio import PortAudio

    return [PortAudio(), MiniAudio()]


class Gate:
    """What a device calls.  Only the gate of the device in use leads to `exchange`; the others get silence."""

    def __init__(self, owner: Duplex, files: bool) -> None:
        self.calls = 0
        self._owner = owner
        self._files = files

    def __call__(self, captured: Sound) -> Sound:
        """Silence, or an exchange."""
        self.calls += 1
        owner = self._owner
        # A device that was given up may still be inside; the one in use does not wait for it.
        if owner.gate is not self or not owner.one_at_a_time.acquire(blocking=False):
            return silent()
        try:
            if not self._files:
                return owner.exchange(captured)
            if owner.source is not None:
                captured = owner.source.read()
            played = owner.exchange(captured)
            if owner.sink is not None:
                owner.sink.write(played)
            return played
        finally:
            owner.one_at_a_time.release()


@dataclass(slots=True)
class _Used:
    plan: Plan
    device: Device
    gate: Gate


class _Job:
    """Looks, opens and closes in a thread of its own."""

    def __init__(self, owner: Duplex, close: Device | None, better_than: Plan | None, now: float) -> None:
        self.began = now
        self.result: _Used | None = None
        self.abandoned = False
        self.finished = False
        self.why: str | None = None
        self._owner = owner
        self._close = close
        self._better_than = better_than
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, name="meshcall sound opener", daemon=True)
        self.thread.start()

    def abandon(self) -> bool:
        """Give it up; False if it has just finished."""
        with self._lock:
            self.abandoned = not self.finished
            return self.abandoned

    def _run(self) -> None:
        found = None
        try:
            if self._close is not None:
                close_quietly(self._close, self._owner.counters)
            found = self._owner.open_best(self, self._better_than)
        finally:
            with self._lock:
                self.finished = True
                if not self.abandoned:
                    self.result, found = found, None
            if found is not None:
                close_quietly(found.device, self._owner.counters)


def close_quietly(device: Device, counters: Counter[str]) -> None:
    """Stop a device of which nothing is wanted any more; waits for a sound system that is busy with another."""
    for _ in range(CLOSE_ATTEMPTS):
        try:
            device.stop()
        except DeviceError:
            counters["closing waited"] += 1
        else:
            return
    counters["devices not closed"] += 1


class Duplex:
    """Microphone and loudspeaker of a call: `start`, `begin`, `choose`, `stop`.  Used once."""

    def __init__(
        self,
        choice: SoundChoice | None = None,
        *,
        source: Source | None = None,
        sink: Sink | None = None,
        backends: Sequence[Backend] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source`, `sink`: files in the place of microphone and loudspeaker; closed by `stop`.

        With both of them, or with the backend "null", no hardware is looked for.
        """
        self.source = source
        self.sink = sink
        self.counters: Counter[str] = Counter()
        self.gate: Gate | None = None
        self.one_at_a_time = threading.Lock()
        self.exchange: Exchange = lambda captured: silent()
        self.inventories: list[Inventory] = []
        """As last seen."""
        self.fruitless = 0
        """How often nothing better than what is in use was found."""
        self._choice = self._without_files(choice or SoundChoice())
        self._backends = backends
        self._clock = clock
        self._used: _Used | None = None
        self._job: _Job | None = None
        self._hung: list[threading.Thread] = []
        self._bans: dict[tuple[str, str, str], tuple[float, float]] = {}
        self._look_at = 0.0
        self._look_every = LOOK_SECONDS
        self._said: set[str] = set()
        self._changed: OnChanged | None = None
        self._stop = threading.Event()
        self._supervisor: threading.Thread | None = None

    # What the owner calls.

    def start(self, exchange: Exchange, changed: OnChanged | None = None) -> None:
        """Begin to call `exchange` every 10 ms, at once, from threads of the devices.

        `changed` is called from a thread of this object, never from a device's; it must not wait long.
        """
        self.exchange = exchange
        self._changed = changed
        wanted = plans(self._choice, [])[0]
        self._use_null(wanted)
        if wanted.chosen:
            self._tell(None)
        self._supervisor = threading.Thread(target=self._supervise, name="meshcall sound supervisor", daemon=True)
        self._supervisor.start()

    def begin(self, at: float | None = None) -> None:
        """The start signal of files that were opened `held`; `at`: of time.monotonic, exact if both are files."""
        used = self._used
        if (
            used is not None
            and isinstance(used.device, TimedDevice)
            and self.source is not None
            and self.sink is not None
        ):
            used.device.begin(at)
            return
        for one in (self.source, self.sink):
            if one is not None:
                one.held = False

    def choose(self, choice: SoundChoice) -> None:
        """Another choice, live; the device in use stays until the new one gives sound."""
        self._choice = self._without_files(choice)
        self._said.clear()
        self._bans.clear()
        self._look_every, self._look_at = LOOK_SECONDS, 0.0

    def stop(self) -> None:
        """End everything; files are complete after it.  Waits for a hanging sound system 1 s at most."""
        self._stop.set()
        self.gate = None
        if self._supervisor is not None and self._supervisor is not threading.current_thread():
            self._supervisor.join(1.0)
        used, self._used = self._used, None
        if used is not None:
            closer = threading.Thread(
                target=close_quietly, args=(used.device, self.counters), name="meshcall sound closer", daemon=True
            )
            closer.start()
            closer.join(1.0)
        for one in (self.source, self.sink):
            if one is not None:
                one.close()

    @property
    def name(self) -> str:
        """Of the device in use, for people."""
        used = self._used
        return "no sound device" if used is None else self._name_of(used.plan)

    @property
    def backend(self) -> str:
        """Of the device in use; "null" for silence and for files alone."""
        used = self._used
        return "null" if used is None else used.plan.backend

    @property
    def chosen(self) -> bool:
        """The device in use is the one that the user wants."""
        used = self._used
        return used is not None and used.plan.chosen

    @property
    def latency(self) -> Latency:
        """As the device in use reports it."""
        used = self._used
        return Latency() if used is None else used.device.latency

    def stats(self) -> dict[str, int]:
        """Counters of the device in use and of this object."""
        used = self._used
        return {**(used.device.counters if used is not None else {}), **self.counters}

    # The supervisor.

    def _supervise(self) -> None:
        pause = CHECK_SECONDS
        while not self._stop.wait(pause):
            now = self._clock()
            pause = CHECK_FILES_SECONDS if self._nothing_wanted() and self.backend == "null" else CHECK_SECONDS
            self._say_of_files()
            self._reap(now)
            used = self._used
            if used is None:
                continue
            if (why := used.device.trouble()) is not None:
                self._fail(used, why, now)
            elif self._nothing_wanted():
                if used.plan.backend != "null":
                    self._use_null(Plan("null"))
                    self._close_later(used.device)
                    self._tell(None)
            elif self._job is None and now >= self._look_at and (not used.plan.chosen or self._look_at == 0.0):
                self._start_job(None, used.plan, now)
        job = self._job
        if job is not None and not job.abandon() and job.result is not None:
            close_quietly(job.result.device, self.counters)

    def _nothing_wanted(self) -> bool:
        return plans(self._choice, [])[0].chosen

    def _fail(self, used: _Used, why: str, now: float) -> None:
        self.counters["devices failed"] += 1
        self._ban(used.plan, now)
        self._use_null(Plan("null", chosen=False))
        self._tell(why)
        self._look_every = LOOK_SECONDS
        if self._job is not None and self._job.abandon():
            self._hung.append(self._job.thread)
            self._job = None
        if self._job is None:
            self._start_job(used.device, None, now)

    def _ban(self, plan: Plan, now: float) -> None:
        if len(self._bans) >= BANS_MAX:
            self._bans.clear()
        _, last = self._bans.get(_key(plan), (0.0, BAN_SECONDS / 2))
        seconds = min(BAN_SECONDS_MAX, last * 2)
        self._bans[_key(plan)] = (now + seconds, seconds)

    def _start_job(self, close: Device | None, better_than: Plan | None, now: float) -> None:
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        self._look_at = now + self._look_every
        self._look_every = min(LOOK_SECONDS_MAX, self._look_every * 1.5)
        if len(self._hung) >= HUNG_MAX:
            self.counters["not tried, too much hangs"] += 1
            return
        self._job = _Job(self, close, better_than, now)

    def _reap(self, now: float) -> None:
        job = self._job
        if job is None:
            return
        if not job.finished:
            if now - job.began > JOB_SECONDS and job.abandon():
                self.counters["openings hung"] += 1
                self._hung.append(job.thread)
                self._job = None
            return
        self._job = None
        if job.result is None:
            self.fruitless += 1
            for sentence in missing(self._choice, self.inventories):
                self._say(sentence)
            if job.why is not None:
                self._say(job.why)
            return
        job.result.device.taken()
        before, self._used = self._used, job.result
        self.gate = job.result.gate
        self._look_every = LOOK_SECONDS
        self._look_at = now + LOOK_SECONDS
        if before is not None:
            self._close_later(before.device)
        self._tell(next(iter(missing(self._choice, self.inventories)), None))

    def _close_later(self, device: Device) -> None:
        thread = threading.Thread(
            target=close_quietly, args=(device, self.counters), name="meshcall sound closer", daemon=True
        )
        thread.start()
        self._hung.append(thread)

    def _use_null(self, plan: Plan) -> None:
        device = TimedDevice(self.source or Silence(), self.sink or Discard(), clock=self._clock)
        gate = Gate(self, files=False)
        # The gate first: a device that hangs must not be asked again, and this one may begin at once.
        self._used, self.gate = _Used(plan, device, gate), gate
        device.start(gate)

    # What the job calls, in its thread.

    def open_best(self, job: _Job, better_than: Plan | None) -> _Used | None:
        """The best device that gives sound; None if that is not better than `better_than`, or there is none."""
        if self._backends is None:
            self._backends = default_backends()
        used = self._used
        in_use = used.plan.backend if used is not None else None
        self.inventories = [one.look(fresh=one.name != in_use) for one in self._backends]
        by_name = {one.name: one for one in self._backends}
        for plan in plans(self._choice, self.inventories):
            if plan.backend == "null" or job.abandoned or self._stop.is_set():
                return None
            if used is not None and better_than is not None and plan.same(better_than):
                used.plan = plan  # the same, but perhaps no longer, or only now, what the user wants
                return None
            if self._bans.get(_key(plan), (0.0, 0.0))[0] > self._clock():
                continue
            found = self._try(job, plan, by_name[plan.backend])
            if found is not None:
                return found
        return None

    def _try(self, job: _Job, plan: Plan, backend: Backend) -> _Used | None:
        gate = Gate(self, files=True)
        device = None
        try:
            device = backend.open(plan)
            device.start(gate)
            self._wait_for_life(plan, device, gate)
        except DeviceError as problem:
            job.why = str(problem)
            self.counters["devices that did not work"] += 1
            self._ban(plan, self._clock())
            if device is not None:
                close_quietly(device, self.counters)
            return None
        return _Used(plan, device, gate)

    def _wait_for_life(self, plan: Plan, device: Device, gate: Gate) -> None:
        """Until it runs steadily.  Raises DeviceError."""
        end = self._clock() + LIFE_SECONDS
        since, calls = self._clock(), 0
        while gate.calls - calls < LIFE_CALLS:
            if (why := device.trouble()) is not None:
                raise DeviceError(why)
            now = self._clock()
            if now > end or self._stop.is_set():
                raise DeviceError(f"{plan.name} gives no sound")
            if now - since > LIFE_WITHIN_SECONDS:
                since, calls = now, gate.calls
            time.sleep(CHECK_SECONDS / 10)

    # Words.

    def _without_files(self, choice: SoundChoice) -> SoundChoice:
        return SoundChoice(
            None if self.source is not None else choice.microphone,
            None if self.sink is not None else choice.speaker,
            choice.backend,
        )

    def _name_of(self, plan: Plan) -> str:
        if self.source is None and self.sink is None:
            return plan.name
        microphone = self.source.name if self.source else plan.microphone.name if plan.microphone else "no microphone"
        speaker = self.sink.name if self.sink else plan.speaker.name if plan.speaker else "no loudspeaker"
        return f"{microphone} / {speaker}"

    def _tell(self, why: str | None) -> None:
        used = self._used
        if self._changed is not None and used is not None:
            self._changed(Changed(self._name_of(used.plan), used.plan.backend, used.plan.chosen, why))

    def _say(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < COUNTERS_MAX:
            self._said.add(sentence)
            self._tell(sentence)

    def _say_of_files(self) -> None:
        for one in (self.source, self.sink):
            if one is not None and (sentence := one.trouble()) is not None:
                self._say(sentence)


def _key(plan: Plan) -> tuple[str, str, str]:
    return (
        plan.backend,
        "" if plan.microphone is None else plan.microphone.name,
        "" if plan.speaker is None else plan.speaker.name,
    )
