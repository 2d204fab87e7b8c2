"""The people of a world: some publish an item and keep it alive, all look each other up.

Look-ups come as a Poisson process from random hosts that are ready; a share of them is cold: a
fresh node joins the network for it.  What became of each goes into the tally; what must not be,
to the checks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshcall.dht.events import GetFinished, ItemFound, Joined, PutFinished
from meshcall.dht.items import MutableItem, signing_buffer
from meshcall.sim.scenario import PHASE_ALL, PHASE_BEFORE, PHASE_LAST
from meshcall.sim.tally import Lookup, Publication, Tally

if TYPE_CHECKING:
    from meshcall.crypto.suite import SigningKey
    from meshcall.sim.checks import Checks
    from meshcall.sim.host import Host
    from meshcall.sim.world import World

COLD_SECONDS_MAX = 60.0
"""A fresh node that has not found the network by then counts as one that found nothing."""
COLD_STAYS_SECONDS = 5.0
PUBLISH_SECONDS = 30.0
"""The first publications are spread over this."""
LOOKUPS_AFTER_SECONDS = 45.0
"""Look-ups begin so long after the first publication."""
REPUBLISH_JITTER = 0.1


@dataclass(slots=True)
class Person:
    """Somebody who publishes from a host of theirs."""

    number: int
    host: Host
    key: SigningKey
    item: MutableItem | None = None
    durable: int = -1
    """The highest seq that at least one node has acknowledged."""
    settled: int = -1
    """The same of those put while the network was whole: from then on everybody must find it."""


@dataclass(slots=True)
class Job:
    """An operation under way at a host.  `cold`: its host joined for it."""

    person: Person
    started: float
    phase: str
    seq: int
    """Publication: the seq put.  Look-up: the least that counts as the newest."""
    publishes: bool
    whole: bool = True
    """Whether the network was in one piece when it began."""
    must: int = -1
    """A look-up that has no excuse for finding less than this seq; -1: there are excuses."""
    cold: bool = False
    first: float | None = None


class People:
    """A `world.Listener` that makes the cores work and notes what comes of it."""

    def __init__(self, world: World, checks: Checks, tally: Tally) -> None:
        self.world = world
        self.settings = world.scenario.people
        self.checks = checks
        self.tally = tally
        self.phase = PHASE_BEFORE if any(event.phase for event in world.scenario.event) else PHASE_ALL
        self.calm = True
        """While nothing disturbs the world, older items and misses are violations, not mere figures."""
        self.persons: list[Person] = []
        self._at: dict[int, list[Person]] = {}
        self._published: list[Person] = []
        self._jobs: dict[int, dict[int, Job]] = {}
        self._cold: dict[int, Job] = {}
        self._stopped = False
        count = min(self.settings.publishers, len(world.hosts) - 1)
        homes = world.rng.sample(world.hosts[1:], count)
        for number, host in enumerate(homes):
            person = Person(number, host, world.suite.expand(world.rng.randbytes(32)))
            self.persons.append(person)
            self._at.setdefault(host.number, []).append(person)
            if world.scenario.churn.publishers_stay:
                world.spared.add(host.number)
        world.listeners.append(self)

    def begin(self, now: float) -> None:
        """From now on they publish and, a little later, look up."""
        schedule = self.world.schedule
        for person in self.persons:
            schedule.at(now + PUBLISH_SECONDS * person.number / len(self.persons), self._first_publication, person)
        if self.settings.lookups_per_minute:
            schedule.call(now + LOOKUPS_AFTER_SECONDS, self._next_lookup)

    def stop(self) -> None:
        """No more look-ups and changes of their own accord; they still keep their items alive."""
        self._stopped = True

    # ---- publishing

    def _first_publication(self, now: float, person: Person, _second: None, _third: None) -> None:
        self._change(now, person)
        if self.settings.update_minutes:
            self._plan_update(now, person)
        self._plan_republication(now, person)

    def _plan_update(self, now: float, person: Person) -> None:
        wait = round(self.world.rng.expovariate(1 / (self.settings.update_minutes * 60)), 3)
        self.world.schedule.at(now + wait, self._update, person)

    def _update(self, now: float, person: Person, _second: None, _third: None) -> None:
        if not self._stopped:
            self._change(now, person)
            self._plan_update(now, person)

    def _plan_republication(self, now: float, person: Person) -> None:
        wait = self.settings.republish_minutes * 60 * (1 - REPUBLISH_JITTER * self.world.rng.random())
        self.world.schedule.at(round(now + wait, 3), self._republication, person)

    def _republication(self, now: float, person: Person, _second: None, _third: None) -> None:
        self.publish(now, person)
        self._plan_republication(now, person)

    def _change(self, now: float, person: Person) -> None:
        """Make the person's next item and publish it."""
        seq = 0 if person.item is None else person.item.seq + 1
        public = person.key.public
        content = hashlib.shake_128(public + b"%d" % seq).digest(self.settings.value_bytes)
        value = b"%d:%s" % (len(content), content)
        signature = self.world.suite.sign(person.key, signing_buffer(b"", seq, value))
        person.item = MutableItem(public, b"", seq, value, signature)
        self.checks.signed(person.item)
        self.publish(now, person)

    def publish(self, now: float, person: Person) -> bool:
        """Put the person's item, if their host is on and has found the network."""
        host, item = person.host, person.item
        if host.core is None or item is None or not self.world.is_ready(host):
            return False
        number = host.core.put(now, item)
        self._jobs.setdefault(host.number, {})[number] = Job(
            person, now, self.phase, item.seq, publishes=True, whole=not self.world.network.is_split
        )  # fmt: skip
        host.drain(now)
        return True

    # ---- looking up

    def _next_lookup(self, now: float) -> None:
        if self._stopped:
            return
        rng = self.world.rng
        self.look_up_somebody(now, cold=rng.random() < self.settings.cold_share)
        wait = round(rng.expovariate(self.settings.lookups_per_minute / 60), 6)
        self.world.schedule.call(now + wait, self._next_lookup)

    def burst(self, now: float, count: int, seconds: float, cold: bool) -> None:
        """So many look-ups, evenly over a time."""
        for number in range(count):
            self.world.schedule.call(
                now + seconds * number / count, lambda when: self.look_up_somebody(when, cold=cold)
            )

    def look_up_somebody(self, now: float, *, cold: bool) -> None:
        """A random host, or a fresh one, looks up a random person who has published."""
        world = self.world
        if not self._published:
            return
        person = self._published[world.rng.randrange(len(self._published))]
        if cold:
            host = world.add_host()
            must = person.settled if self.calm else -1
            job = Job(person, now, self.phase, person.durable, publishes=False, must=must, cold=True)
            self._cold[host.number] = job
            world.schedule.call(now + COLD_SECONDS_MAX, lambda when: self._too_cold(when, host))
            world.switch_on(now, host)
        elif world.ready:
            self.look_up(now, world.ready[world.rng.randrange(len(world.ready))], person)

    def look_up(self, now: float, host: Host, person: Person) -> None:
        """This host looks up this person."""
        excused = not self.calm or (self.phase == PHASE_LAST and not self.world.is_ready(person.host))
        must = -1 if excused else person.settled
        self._get(now, host, Job(person, now, self.phase, person.durable, publishes=False, must=must))

    def _get(self, now: float, host: Host, job: Job) -> None:
        assert host.core is not None
        number = host.core.get_mutable(now, job.person.key.public)
        self._jobs.setdefault(host.number, {})[number] = job
        host.drain(now)

    def _too_cold(self, now: float, host: Host) -> None:
        job = self._cold.pop(host.number, None)
        if job is not None:
            self.tally.lookups.append(Lookup(job.phase, True, job.started, "missing", None, now - job.started, 0, 0, 0))
            self.world.remove(now, host)

    def look_up_all(self, now: float, seconds: float) -> int:
        """Everybody who has published is looked up once, evenly over a time; how many they are."""
        ready = self.world.ready
        for number, person in enumerate(self._published):
            others = [host for host in ready if host is not person.host]
            if others:
                host = others[self.world.rng.randrange(len(others))]
                self.world.schedule.at(now + seconds * number / len(self._published), self._look_up_one, host, person)
        return len(self._published)

    def _look_up_one(self, now: float, host: Host, person: Person, _third: None) -> None:
        self.look_up(now, host, person)

    def publish_all(self, now: float, seconds: float) -> None:
        """Everybody whose host is on publishes again, evenly over a time."""
        for number, person in enumerate(self.persons):
            when = now + seconds * number / len(self.persons)
            self.world.schedule.at(when, self._publish_again, person)

    def _publish_again(self, now: float, person: Person, _second: None, _third: None) -> None:
        self.publish(now, person)

    # ---- what the cores say

    def heard(self, now: float, host: Host, event: Any) -> None:
        """A core said an event."""
        kind = type(event)
        if kind is Joined:
            job = self._cold.pop(host.number, None)
            if job is not None:
                self._get(now, host, job)
            for person in self._at.get(host.number, ()):
                self.publish(now, person)
        elif kind is ItemFound:
            job = self._jobs.get(host.number, {}).get(event.operation)
            if job is not None and not job.publishes:
                self.checks.yielded(now, host, event.item)
                if job.first is None:
                    job.first = now - job.started
        elif kind is GetFinished or kind is PutFinished:
            job = self._jobs.get(host.number, {}).pop(event.operation, None)
            if job is None:
                return
            if isinstance(event, GetFinished):
                self._got(now, host, job, event)
            else:
                self._put(now, job, event)

    def gone(self, now: float, host: Host) -> None:
        """A host was switched off, and with it what it had in hand."""
        self.checks.gone(host)
        self.tally.abandoned += len(self._jobs.pop(host.number, ())) + (self._cold.pop(host.number, None) is not None)

    def _put(self, now: float, job: Job, event: PutFinished) -> None:
        report = event.report
        self.tally.publications.append(
            Publication(job.phase, job.started, now - job.started, report.requests, event.stored, event.errors)
        )
        if event.stored:
            if job.person.durable < 0:
                self._published.append(job.person)
            job.person.durable = max(job.person.durable, job.seq)
            if job.whole and not self.world.network.is_split:
                job.person.settled = max(job.person.settled, job.seq)

    def _got(self, now: float, host: Host, job: Job, event: GetFinished) -> None:
        item, report = event.item, event.report
        if item is None:
            outcome = "missing"
        elif not isinstance(item, MutableItem) or not self.checks.genuine(item):
            outcome = "forged"
        else:
            outcome = "newest" if item.seq >= job.seq else "older"
        # What began in the calm and was caught by an outage or a split has its excuse too.
        if self.calm and (item.seq if isinstance(item, MutableItem) else -1) < job.must:
            what = "nothing" if item is None else "an older item than was published"
            self.checks.violate(
                now, f"nothing disturbed the world, but host {host.number} found {what} of person {job.person.number}"
            )
        self.tally.lookups.append(
            Lookup(
                job.phase, job.cold, job.started, outcome, job.first, now - job.started,
                report.requests, report.answers, report.hops,
            )
        )  # fmt: skip
        if job.cold:
            self.world.schedule.call(now + COLD_STAYS_SECONDS, lambda when: self.world.remove(when, host))
