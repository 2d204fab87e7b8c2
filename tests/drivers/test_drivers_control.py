"""The local API: its form, its bounds, and that hostile input gets an error and nothing else."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshcall.drivers import control
from meshcall.drivers.control import ControlServer, EventSink, NoArgs, Op, connect, listen
from meshcall.errors import DaemonError, StateError, UsageError


class EchoArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """For the op of these tests."""

    text: str
    events: int = 0


async def _echo(args: EchoArgs, event: EventSink) -> Mapping[str, Any]:
    for number in range(args.events):
        event("count", {"number": number})
    return {"text": args.text}


async def _forever(_args: NoArgs, event: EventSink) -> Mapping[str, Any]:
    event("started", {})
    await trio.sleep_forever()
    return {}


async def _refuse(_args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
    raise StateError("the disk is full")


async def _fault(_args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
    raise ZeroDivisionError("a defect")


OPS = {
    "echo": Op(EchoArgs, _echo),
    "forever": Op(NoArgs, _forever),
    "refuse": Op(NoArgs, _refuse),
    "fault": Op(NoArgs, _fault),
}


async def _serve(nursery: trio.Nursery, home: Path) -> tuple[ControlServer, list[Exception]]:
    faults: list[Exception] = []
    server = ControlServer(OPS, {"version": "0"}, faults.append)
    await nursery.start(server.run, listen(home / control.SOCKET_NAME))
    return server, faults


class Raw:
    """A client that says whatever it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.rest = b""

    async def line(self) -> dict[str, Any] | None:
        with trio.fail_after(5):
            while b"\n" not in self.rest:
                try:
                    more = await self.stream.receive_some()
                except trio.BrokenResourceError:  # closed while something of ours was unread
                    return None
                if not more:
                    return None
                self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)


async def _hold(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


async def _raw(nursery: trio.Nursery, home: Path) -> Raw:
    raw = Raw(await trio.open_unix_socket(str(home / control.SOCKET_NAME)))
    nursery.start_soon(_hold, raw.stream)
    assert (await raw.line() or {})["hello"] == "meshcall"
    return raw


async def test_hello_then_requests_events_and_answers(nursery: trio.Nursery, tmp_path: Path) -> None:
    await _serve(nursery, tmp_path)
    events: list[Any] = []
    async with connect(tmp_path) as client:
        assert client.hello["protocol"] == control.PROTOCOL_VERSION
        assert "echo" in client.hello["ops"]
        result = await client.request(
            "echo", {"text": "grüß", "events": 3}, lambda name, data: events.append((name, data))
        )
        assert result == {"text": "grüß"}
        assert events == [("count", {"number": number}) for number in range(3)]
        assert await client.request("echo", {"text": "again"}) == {"text": "again"}


async def test_only_the_owner_can_open_the_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    await _serve(nursery, home)
    assert stat.S_IMODE((home / control.SOCKET_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


async def test_errors_are_sentences_with_a_kind(nursery: trio.Nursery, tmp_path: Path) -> None:
    _, faults = await _serve(nursery, tmp_path)
    raw = await _raw(nursery, tmp_path)
    for line, kind, part in (
        (b'{"id":1,"op":"refuse"}', "state", "disk is full"),
        (b'{"id":1,"op":"nothing"}', "unknown op", "echo"),
        (b'{"id":1,"op":"echo"}', "bad request", "text"),
        (b'{"id":1,"op":"echo","args":{"text":5}}', "bad request", "text"),
        (b'{"id":1,"op":"echo","args":{"text":"a","more":1}}', "bad request", "more"),
        (b'{"id":1,"op":"fault"}', "internal", "ZeroDivisionError"),
    ):
        await raw.say(line + b"\n")
        answer = await raw.line()
        assert answer is not None
        assert (answer["id"], answer["ok"], answer["error"]["kind"]) == (1, False, kind)
        assert part in answer["error"]["message"]
    assert len(faults) == 1


@pytest.mark.parametrize(
    "junk",
    [
        b"hello?\n", b"{}\n", b"[]\n", b"null\n", b'{"id":1}\n', b'{"op":"echo"}\n', b'{"id":[],"op":"echo"}\n',
        b'{"id":1,"op":"echo","args":[]}\n', b'{"id":1,"op":"echo","extra":1}\n', b"\xff\xfe\x00\n",
        b'{"id":1,"op":"echo","args":{"text":NaN}}\n', b'{"id":1e400,"op":"echo"}\n', b"[" * 5000 + b"\n",
        b'{"id":1,"op":"echo","args":' + b'{"a":' * 5000 + b"\n",
    ],
)  # fmt: skip
async def test_junk_gets_an_error_and_the_connection_goes_on(
    nursery: trio.Nursery, tmp_path: Path, junk: bytes
) -> None:
    await _serve(nursery, tmp_path)
    raw = await _raw(nursery, tmp_path)
    await raw.say(junk)
    answer = await raw.line()
    assert answer is not None
    assert answer["ok"] is False
    assert answer["error"]["kind"] == "bad request"
    await raw.say(b'\n  \n{"id":"a","op":"echo","args":{"text":"fine"}}\n')
    assert (await raw.line() or {})["result"] == {"text": "fine"}


async def test_a_line_without_an_end_is_cut_off(nursery: trio.Nursery, tmp_path: Path) -> None:
    server, _ = await _serve(nursery, tmp_path)
    raw = await _raw(nursery, tmp_path)
    await raw.say(b"x" * (control.LINE_BYTES_MAX + 20_000))
    answer = await raw.line()
    assert answer is not None
    assert str(control.LINE_BYTES_MAX) in answer["error"]["message"]
    assert await raw.line() is None
    assert server.counters["refused: bad request"] == 1
    async with connect(tmp_path) as client:
        assert await client.request("echo", {"text": "others go on"})


async def test_requests_of_a_client_are_bounded_and_can_be_cancelled(nursery: trio.Nursery, tmp_path: Path) -> None:
    await _serve(nursery, tmp_path)
    raw = await _raw(nursery, tmp_path)
    for number in range(control.PENDING_MAX):
        await raw.say(b'{"id":%d,"op":"forever"}\n' % number)
        assert (await raw.line() or {})["event"] == "started"
    await raw.say(b'{"id":99,"op":"echo","args":{"text":"a"}}\n')
    assert (await raw.line() or {})["error"]["kind"] == "busy"
    await raw.say(b'{"id":3,"op":"forever"}\n')
    assert "still running" in (await raw.line() or {})["error"]["message"]
    await raw.say(b'{"id":100,"op":"cancel","args":{"request":3}}\n')
    answers = [await raw.line(), await raw.line()]
    assert {"id": 100, "ok": True, "result": {"cancelled": True}} in answers
    assert any(one and one["id"] == 3 and one["error"]["kind"] == "cancelled" for one in answers)
    await raw.say(b'{"id":101,"op":"cancel","args":{"request":[1]}}\n')
    assert (await raw.line() or {})["result"] == {"cancelled": False}
    await raw.say(b'{"id":99,"op":"echo","args":{"text":"a"}}\n')
    assert (await raw.line() or {})["ok"] is True


async def test_clients_are_bounded(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CLIENTS_MAX", 2)
    server, _ = await _serve(nursery, tmp_path)
    first, _second = await _raw(nursery, tmp_path), await _raw(nursery, tmp_path)
    with pytest.raises(DaemonError, match="too many clients"):
        async with connect(tmp_path):
            pass
    await first.stream.aclose()
    with trio.fail_after(5):
        while server._clients == 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
    async with connect(tmp_path) as client:
        assert await client.request("echo", {"text": "a"})


async def test_a_client_that_goes_away_ends_its_requests(nursery: trio.Nursery, tmp_path: Path) -> None:
    ended = trio.Event()

    async def waits(_args: NoArgs, event: EventSink) -> Mapping[str, Any]:
        event("started", {})
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return {}

    server = ControlServer({"waits": Op(NoArgs, waits)}, {})
    await nursery.start(server.run, listen(tmp_path / control.SOCKET_NAME))
    raw = await _raw(nursery, tmp_path)
    await raw.say(b'{"id":1,"op":"waits"}\n')
    assert (await raw.line() or {})["event"] == "started"
    await raw.stream.aclose()
    with trio.fail_after(5):
        await ended.wait()


async def test_a_client_that_does_not_read_is_let_go(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SEND_SECONDS_MAX", 0.05)
    server, _ = await _serve(nursery, tmp_path)
    raw = await _raw(nursery, tmp_path)
    big = json.dumps({"id": 1, "op": "echo", "args": {"text": "x" * 60_000}}).encode() + b"\n"
    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
        while True:
            await raw.say(big)
    with trio.fail_after(5):
        while server._clients:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert server.counters["clients too slow"] == 1


async def test_no_node_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"no node is running here .*start one with `meshcall up`"):
        async with connect(tmp_path):
            pass
    listener = listen(tmp_path / control.SOCKET_NAME)
    await listener.aclose()  # the socket file stays, as after kill -9
    with pytest.raises(DaemonError, match="no node is running here"):
        async with connect(tmp_path):
            pass
    await listen(tmp_path / control.SOCKET_NAME).aclose()


async def test_a_file_that_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / control.SOCKET_NAME).write_text("precious")
    with pytest.raises(UsageError, match="not a socket"):
        listen(tmp_path / control.SOCKET_NAME)
    assert (tmp_path / control.SOCKET_NAME).read_text() == "precious"


async def test_deep_folders_are_no_obstacle(nursery: trio.Nursery, tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("er" * 20)
    await _serve(nursery, home)
    async with connect(home) as client:
        assert await client.request("echo", {"text": "deep"}) == {"text": "deep"}


async def test_another_protocol_is_a_sentence(nursery: trio.Nursery, tmp_path: Path) -> None:
    server = ControlServer({}, {"version": "9.9"})
    server.hello["protocol"] = 99
    await nursery.start(server.run, listen(tmp_path / control.SOCKET_NAME))
    with pytest.raises(DaemonError, match=r"version 9\.9"):
        async with connect(tmp_path):
            pass


async def test_a_node_that_stops_is_a_sentence(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await _serve(nursery, tmp_path)
        async with connect(tmp_path) as client:
            nursery.start_soon(_cancel_soon, nursery.cancel_scope)
            with trio.CancelScope(shield=True), pytest.raises(DaemonError, match="stopped"):
                await client.request("forever")


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.sleep(0.05)
    scope.cancel()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.binary(max_size=200), max_size=8))
def test_no_bytes_bring_the_server_down(tmp_path: Path, lines: list[bytes]) -> None:
    async def check() -> None:
        async with trio.open_nursery() as nursery:
            _, faults = await _serve(nursery, tmp_path)
            raw = await _raw(nursery, tmp_path)
            await raw.say(b"\n".join(lines) + b'\n{"id":"last","op":"echo","args":{"text":"alive"}}\n')
            answer = await raw.line()
            while answer is not None and answer["id"] != "last":
                assert answer["ok"] is False or answer["id"] is not None
                answer = await raw.line()
            assert answer is not None
            assert answer["result"] == {"text": "alive"}
            assert not faults
            await raw.stream.aclose()
            nursery.cancel_scope.cancel()

    trio.run(check)


def test_the_kind_of_an_error_is_one_of_the_documented() -> None:
    from meshcall.address import TypingError

    assert control.kind_of(TypingError("one character", (3,))) == "address"
    assert control.kind_of(control.NoNodeError()) == "daemon"
    assert control.kind_of(UsageError()) == "usage"
