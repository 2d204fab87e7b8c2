"""What happens in the demonstration, in which order, and whether it went well."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from meshcall.core import show_endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.daemon.shapes import totals
from meshcall.daemon.start_points import OFFLINE_VARIABLE
from meshcall.demo.people import Person, make_identity, running
from meshcall.demo.speech import CLIPS
from meshcall.demo.swarm import Swarm
from meshcall.errors import MeshcallError

if TYPE_CHECKING:
    from meshcall.demo.view import View

PUBLISH_SECONDS_MAX = 20.0
PLACE_SECONDS_MAX = 40.0
ECHOES = 60
ECHO_SECONDS = 0.02
"""Between two echoes: as often as voice packets."""
TALK_SECONDS = 12.0
CHART_COLUMNS = 72
PAGE_NAME = "call.html"
SILENT_SHARE = 0.3
LOOK_SECONDS = 0.1
"""How often the view is told how the nodes stand."""

Json = dict[str, Any]


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user pressed Ctrl-C, or the system asked the demonstration to end."""


async def play(nodes: int, view: View, out: Path | None = None) -> Json:
    """Run the whole demonstration and return what was measured.  `out`: where the call's page and recordings go.

    Raises MeshcallError where it did not work, Interrupted where it was stopped; either way, and in every
    other, all processes and files are gone afterwards.
    """
    os.environ[OFFLINE_VARIABLE] = "1"
    measured: Json = {"nodes": nodes}
    stopped = False
    with tempfile.TemporaryDirectory(prefix="meshcall-demo-") as folder:
        async with trio.open_nursery() as nursery:

            async def watch(*, task_status: trio.TaskStatus[None]) -> None:
                nonlocal stopped
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
                    task_status.started()
                    async for _ in received:
                        stopped = True
                        nursery.cancel_scope.cancel()

            await nursery.start(watch)
            await _Story(nodes, Path(folder), view, nursery, measured, out).tell()
            nursery.cancel_scope.cancel()
    if stopped:
        raise Interrupted
    return measured


class _Story:
    def __init__(
        self, nodes: int, folder: Path, view: View, nursery: trio.Nursery, measured: Json, out: Path | None
    ) -> None:
        self.nodes = nodes
        self.out = out
        self.folder = folder
        self.view = view
        self.nursery = nursery
        self.measured = measured
        self._way: tuple[str, str, Json, dict[str, str | None]] | None = None

    async def tell(self) -> None:
        began = trio.current_time()
        swarm = await self.step(
            f"A private network: {self.nodes} nodes on 127.0.0.1, each its own socket", self.network
        )
        self.nursery.start_soon(self._watch, swarm)
        addresses = await self.step("Two people make their identities", self.identities)
        async with AsyncExitStack() as stack:
            ann, bob = await self.step(
                "Each starts a node (`meshcall up`, a process of its own)", self.daemons, stack, swarm, addresses
            )
            await self.step("Ann's node publishes her record, sealed and under a key of the day", self.published, ann)
            await self.step("Bob looks Ann up, knowing only her address", self.looked_up, swarm, bob, ann, "lookup")
            await self.step(
                f"{SILENT_SHARE:.0%} of the nodes fall silent without warning; Bob looks her up again",
                self.after_silence, swarm, bob, ann,
            )  # fmt: skip
            await self.step("Ann looks Bob up", self.looked_up, swarm, ann, bob, "back")
            await self.step("Both have found a volunteer's relay and keep a place there", self.placed, swarm, ann, bob)
            await self.step(
                "Bob links to Ann: through the relay at once, direct as soon as it is proven", self.linked,
                swarm, bob, ann,
            )  # fmt: skip
            await self.step("Ann calls Bob and speaks; he answers her", self.called, ann, bob)
        self.measured["seconds"] = round(trio.current_time() - began, 3)

    async def step(self, title: str, task: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """One step: its title, then what came of it and how long it took."""
        self.view.begin(title)
        began = trio.current_time()
        outcome, remark = await task(*arguments)
        self.view.done(remark, trio.current_time() - began)
        if self._way is not None:
            self.view.way(*self._way)
            self._way = None
        return outcome

    async def _watch(self, swarm: Swarm) -> None:
        while True:
            self.view.network(swarm.seats())
            await trio.sleep(LOOK_SECONDS)

    async def network(self) -> tuple[Swarm, str]:
        swarm = Swarm(self.nodes, Sodium())
        await self.nursery.start(swarm.run)
        fewest, most = await swarm.join()
        return swarm, f"each was told of one or two others, and knows {fewest} to {most} by now"

    async def identities(self) -> tuple[dict[str, str], str]:
        addresses: dict[str, str] = {}

        async def make(name: str) -> None:
            addresses[name] = await make_identity(name, self.folder / name.lower())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, "Ann")
            nursery.start_soon(make, "Bob")
        return addresses, f"Ann is {addresses['Ann']}"

    async def daemons(
        self, stack: AsyncExitStack, swarm: Swarm, addresses: dict[str, str]
    ) -> tuple[tuple[Person, Person], str]:
        known = [show_endpoint(where) for where in swarm.first_endpoints]
        found = []
        for name in ("Ann", "Bob"):
            found.append(
                await stack.enter_async_context(
                    running(name, self.folder / name.lower(), addresses[name], known, list(addresses.values()))
                )
            )
        ann, bob = found
        return (ann, bob), f"processes {ann.process.pid} and {bob.process.pid}, told of {len(known)} nodes"

    async def published(self, person: Person) -> tuple[None, str]:
        with trio.move_on_after(PUBLISH_SECONDS_MAX):
            while True:
                record = (await person.status())["record"]
                periods = record["periods"] if record else []
                if periods and periods[0]["published_seconds_ago"] is not None:
                    self.measured["stored_on"] = periods[0]["stored"]
                    return None, f"stored on the {periods[0]['stored']} nodes nearest to its place"
                await trio.sleep(0.05)
        raise MeshcallError(f"the record of {person.name} was not published within {PUBLISH_SECONDS_MAX:.0f} s")

    async def looked_up(self, swarm: Swarm, who: Person, whom: Person, key: str) -> tuple[None, str]:
        result = await self._find(who, whom)
        requests, answers, hops = totals(result)
        self.measured[key] = {
            "first_ms": round(result["first_seconds"] * 1000, 2),
            "confirmed_ms": round(result["seconds"] * 1000, 2),
            "requests": requests,
            "answers": answers,
            "hops": hops,
        }
        steps = [step for one in result["lookups"] if one["report"] for step in one["report"]["steps"]]
        names = {step["endpoint"]: swarm.name_of(step["endpoint"]) for step in steps}
        for person in (who, whom):
            own = (await person.status())["network"]["endpoints"]
            names.update({where: f"{person.name}'s node" for where in own if where in names})
        self._way = (who.name, whom.name, result, names)
        return None, (
            f"found after {result['first_seconds'] * 1000:.1f} ms, certain after {result['seconds'] * 1000:.1f} ms "
            f"({requests} questions, {answers} answers)"
        )

    async def _find(self, who: Person, whom: Person) -> Json:
        """A look-up, tried again while a record that has just been published may not have arrived."""
        with trio.move_on_after(PUBLISH_SECONDS_MAX):
            while True:
                result = await who.look_up(whom.address)
                if result["found"]:
                    break
                if result["outcome"] not in ("not published", "no answer"):
                    raise MeshcallError(f"{who.name} did not find {whom.name}: {result['reason']}")
                await trio.sleep(0.3)
        if not result["found"]:
            raise MeshcallError(f"{who.name} did not find {whom.name}: {result['reason']}")
        device = (await whom.status())["identity"]["device"]
        if device not in [one["serial"] for one in result["record"]["devices"]]:
            raise MeshcallError(f"{who.name} found a record of {whom.name} without {whom.name}'s device in it")
        return result

    async def after_silence(self, swarm: Swarm, who: Person, whom: Person) -> tuple[None, str]:
        gone, keepers = swarm.fall_silent(SILENT_SHARE)
        self.measured["silent"] = gone
        _, remark = await self.looked_up(swarm, who, whom, "lookup_after_silence")
        return None, f"{gone} of {self.nodes} are gone, {keepers} of them had kept a record; {remark}"

    async def placed(self, swarm: Swarm, *people: Person) -> tuple[None, str]:
        """Wait for the places, and for the records that name them."""
        relay = show_endpoint(swarm.relay_endpoint)
        with trio.move_on_after(PLACE_SECONDS_MAX):
            for person in people:
                await _until(_has_place, person, relay)
            for who, whom in zip(people, reversed(people), strict=True):
                await _until(self._names_relay, who, whom)
            return None, f"{swarm.name_of(relay)} forwards their sealed packets; their records name it, not them"
        raise MeshcallError(f"no place at a relay within {PLACE_SECONDS_MAX:.0f} s")

    async def _names_relay(self, who: Person, whom: Person) -> bool:
        return any(one["relays"] for one in (await self._find(who, whom))["record"]["devices"])

    async def linked(self, swarm: Swarm, who: Person, whom: Person) -> tuple[None, str]:
        """Link and send echoes; the view shows by which way each one goes."""
        counts = {"relay": 0, "direct": 0}
        words = {
            "resolved": f"{whom.name}'s record is here",
            "first_packet": "the first packet leaves, to the relay that the record names",
            "handshake": "handshake done (X25519 and ML-KEM-768): the link is sealed, ",
            "first_echo": "the first sealed echo is back",
            "direct": "a direct path is proven and takes over, ",
        }

        def happened(event: str, data: Mapping[str, Any]) -> None:
            if event == "step":
                self.view.note(data["seconds"], words[data["step"]] + data.get("path", ""))
            elif event == "echo":
                counts[data["kind"]] += 1
                self.view.pulse(f"echo {data['number'] + 1}: {data['kind']}, {data['seconds'] * 1000:.1f} ms")

        result = await who.ping(whom.address, ECHOES, ECHO_SECONDS, happened)
        if not counts["direct"] or not result["first_path"].startswith("relay"):
            raise MeshcallError(f"the link of {who.name} and {whom.name} did not go from the relay to a direct path")
        self.measured["link"] = {"relayed": counts["relay"], "direct": counts["direct"], **result["time_line"]}
        return None, (
            f"{result['answered']} of {result['sent']} echoes: {counts['relay']} through {self._name(swarm)}, then "
            f"{counts['direct']} direct, {result['round_trip']['median'] * 1000:.1f} ms there and back"
        )

    async def called(self, who: Person, whom: Person) -> tuple[None, str]:
        """A call with sound, compared with what was said, drawn, and kept where the user wants it."""
        from meshcall.demo.call_page import page
        from meshcall.demo.listening import bars, compare

        folder = self.folder if self.out is None else self.out
        recordings = {one.name: folder / f"heard-by-{one.name.lower()}.wav" for one in (who, whom)}
        events: list[tuple[str, Mapping[str, Any]]] = []
        words = {
            "ringing": f"it rings at {whom.name}'s",
            "answered": f"{whom.name} answers",
            "first_voice": "the first voice is here",
        }

        def happened(event: str, data: Mapping[str, Any]) -> None:
            events.append((event, data))
            if event in words:
                self.view.note(data["seconds"], words[event])
            elif event == "path_changed" and data["path"] is not None:
                self.view.note(data["seconds"], f"the call goes by another path, {data['path']}")
            elif event == "stats" and data["voice"] is not None:
                voice = data["voice"]
                self.view.pulse(
                    f"{data['talk_seconds']:.0f} s, {voice['quality']}, {voice['delay']['total'] * 1000:.0f} ms, "
                    f"loss {voice['loss'] * 100:.0f} %"
                )

        waits = trio.Event()
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                def there(event: str, _data: Mapping[str, Any]) -> None:
                    if event == "waiting":
                        waits.set()

                await whom.answer(CLIPS["Bob"], recordings[whom.name], there)

            nursery.start_soon(answer)
            await waits.wait()
            result = await who.call(whom.address, CLIPS["Ann"], recordings[who.name], TALK_SECONDS, happened)
        if not result["answered"] or result["stats"] is None:
            raise MeshcallError(f"the call of {who.name} and {whom.name} came to nothing: {result['reason']}")
        heard = {
            speaker: await trio.to_thread.run_sync(compare, CLIPS[speaker], recordings[listener])
            for speaker, listener in ((who.name, whom.name), (whom.name, who.name))
        }
        if self.out is not None:
            page_file = trio.Path(self.out / PAGE_NAME)
            await page_file.write_text(page(who.name, whom.name, events, heard, result), encoding="utf-8")
        for speaker, one in heard.items():
            self.view.chart(f"{speaker} said", bars(one.spoken, CHART_COLUMNS))
            self.view.chart("heard", bars(one.heard, CHART_COLUMNS))
        stats = result["stats"]
        self.measured["call"] = {
            "mos": stats["mos"],
            "loss": stats["loss"],
            "delay_ms": round(stats["delay"]["total"] * 1000, 1),
            "kbit_per_second": stats["kbit_per_second"],
            "path": result["path"],
            "log_spectral_distance_db": {speaker: round(one.distance, 2) for speaker, one in heard.items()},
        }
        where = "" if self.out is None else f"; plots and recordings in {self.out}"
        return None, (
            f"{result['talk_seconds']:.0f} s of talk, {result['path']}: quality {stats['quality']} (estimated MOS "
            f"{stats['mos']:.2f} of 4.5), about {stats['delay']['total'] * 1000:.0f} ms from mouth to ear, loss "
            f"{stats['loss'] * 100:.1f} %, {stats['kbit_per_second']:.0f} kbit/s{where}"
        )

    @staticmethod
    def _name(swarm: Swarm) -> str:
        return swarm.name_of(show_endpoint(swarm.relay_endpoint)) or "the relay"


async def _has_place(person: Person, relay: str) -> bool:
    return any(relay in place["endpoints"] for place in await person.places())


async def _until(holds: Callable[..., Awaitable[bool]], *arguments: Any) -> None:
    """Wait for a state that no event tells of."""
    while not await holds(*arguments):  # noqa: ASYNC110
        await trio.sleep(LOOK_SECONDS)
