"""TCP connections to a relay that are meant to do harm, on loopback; and where a relay listens."""

from __future__ import annotations

import socket

import pytest
import trio

from meshcall.core import Endpoint, endpoint
from meshcall.drivers import relay_tcp, tcp_ways
from meshcall.drivers.relay_tcp import TcpPaths, listen
from meshcall.drivers.tcp_ways import TcpWays, ports_to_try
from meshcall.relay.places import tcp_place
from tests.drivers.test_drivers_relay_tcp import Side, running, until


async def test_bytes_without_a_whole_datagram_win_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow loris: a byte now and then keeps no connection."""
    monkeypatch.setattr(relay_tcp, "FIRST_SECONDS", 0.4)
    async with running() as pair:
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
            for byte in b"\x05\xdc" + bytes(1000):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.05)
        assert trio.current_time() - began < 5
        assert not pair.at_relay.got
        assert pair.relay.counters["tcp silent closed"] == 1
        await stream.aclose()


async def test_after_a_first_datagram_bytes_alone_keep_a_connection_no_longer_than_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_tcp, "IDLE_SECONDS", 0.4)
    async with running() as pair:
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await stream.send_all(b"\0\5hello\x05\xdc")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
            while True:
                await stream.send_all(b"x")
                await trio.sleep(0.05)
        assert [data for _, data in pair.at_relay.got] == [b"hello"]
        await stream.aclose()


@pytest.mark.parametrize("cut", [b"\0", b"\x05", b"\0\5hel", b"\0\5hello\0\5hel"])
async def test_a_connection_closed_in_the_middle_of_a_datagram_delivers_whole_ones_only(cut: bytes) -> None:
    async with running() as pair:
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await stream.send_all(cut)
        await stream.aclose()
        await until(lambda: pair.relay.counters["tcp accepted"] and not len(pair.relay))
        assert [data for _, data in pair.at_relay.got] == ([b"hello"] if cut.startswith(b"\0\5hello") else [])
        assert len(pair.at_relay.lost) == 1


async def test_a_connection_reset_in_the_middle_is_the_end_of_it_and_of_nothing_else() -> None:
    async with running() as pair:
        steady = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await steady.send_all(b"\0\1a")
        for _ in range(20):
            stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
            await stream.send_all(b"\0\5hel")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await trio.aclose_forcefully(stream)  # RST
        await until(lambda: len(pair.at_relay.lost) == 20 and len(pair.relay) == 1)
        await steady.send_all(b"\0\1b")
        await until(lambda: [data for _, data in pair.at_relay.got] == [b"a", b"b"])
        await steady.aclose()


async def test_a_full_relay_makes_room_of_unused_connections_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_tcp, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(relay_tcp, "UNUSED_SECONDS", 0.3)
    async with running() as pair:
        streams = [await trio.open_tcp_stream("127.0.0.1", pair.port) for _ in range(4)]
        for stream in streams:
            await stream.send_all(b"\0\1a")
        await until(lambda: len(pair.at_relay.got) == 4)
        refused = await trio.open_tcp_stream("127.0.0.1", pair.port)
        with trio.fail_after(5):
            assert await refused.receive_some(1) == b""
        await trio.sleep(0.4)
        for stream in streams[1:]:
            await stream.send_all(b"\0\1b")
        await until(lambda: len(pair.at_relay.got) == 7)
        late = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await late.send_all(b"\0\1c")
        await until(lambda: pair.at_relay.got[-1][1] == b"c")
        with trio.fail_after(5):
            assert await streams[0].receive_some(1) == b"", "the one that said nothing for the longest time"
        assert pair.relay.counters["tcp closed: made room"] == 1
        for stream in (*streams, refused, late):
            await stream.aclose()


async def test_a_flood_of_connections_leaves_those_that_are_there_alone() -> None:
    async with running() as pair:
        steady = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await steady.send_all(b"\0\1a")
        await until(lambda: pair.at_relay.got)
        place = pair.at_relay.got[0][0]

        async def come_and_go() -> None:
            for _ in range(15):
                stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(come_and_go)
        await until(lambda: pair.relay.counters["tcp refused: too often"])
        assert len(pair.at_relay.lost) <= relay_tcp.CONNECTS_BURST + 10, "few of them cost the core anything"
        pair.relay.send(trio.current_time(), place, b"still here")
        with trio.fail_after(5):
            assert await steady.receive_some(100) == b"\0\nstill here"
        await until(lambda: len(pair.relay) == 1)
        await steady.aclose()


async def test_one_who_connects_keeps_few_connections_and_gives_up_unused_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_tcp, "PATHS_MAX", 3)
    monkeypatch.setattr(relay_tcp, "SPARE_SECONDS", 0.2)
    side = Side()
    paths = TcpPaths(side.deliver, side.gone)
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(4)]
    places = [tcp_place(endpoint("127.0.0.1", each.socket.getsockname()[1]), 0) for each in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(paths.run)
        for place in places:
            paths.send(trio.current_time(), place, b"hello")
        assert paths.counters["tcp refused: too many"] == 1
        streams = [await listener.accept() for listener in listeners[:3]]
        await trio.sleep(0.3)
        paths.send(trio.current_time(), places[1], b"again")
        paths.send(trio.current_time(), places[2], b"again")
        paths.send(trio.current_time(), places[3], b"hello")
        await until(lambda: side.lost == [places[0]])
        streams.append(await listeners[3].accept())
        nursery.cancel_scope.cancel()
    for each in (*streams, *listeners):
        await each.aclose()


def test_connections_are_counted_by_what_one_owner_has_plenty_of() -> None:
    one, other = endpoint("2001:db8:1:2::1", 4000), endpoint("2001:db8:1:2:ffff::9", 5000)
    assert relay_tcp._owners(one) == relay_tcp._owners(other)
    third, far = relay_tcp._owners(endpoint("2001:db8:1:3::1", 4000)), relay_tcp._owners(endpoint("2001:db8:2::1", 1))
    assert len(relay_tcp._owners(one).keys() & third.keys()) == 1, "another address of the same customer"
    assert not third.keys() & far.keys()
    assert relay_tcp._owners(endpoint("192.0.2.1", 1)) == relay_tcp._owners(endpoint("192.0.2.1", 2))
    assert len(relay_tcp._owners(endpoint("192.0.2.1", 1)).keys() & relay_tcp._owners(endpoint("192.0.2.9", 1))) == 1


async def test_a_customer_with_many_addresses_does_not_fill_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_tcp, "CONNECTIONS_PER_ADDRESS_MAX", 2)
    monkeypatch.setattr(relay_tcp, "CONNECTIONS_PER_SUBNET_MAX", 3)
    async with running() as pair:
        streams = []
        for last in (2, 3, 4):
            for _ in range(2):
                stream = await trio.open_tcp_stream("127.0.0.1", pair.port, local_address=f"127.0.0.{last}")
                streams.append(stream)
                await stream.send_all(b"\0\1a")
        await until(lambda: pair.relay.counters["tcp refused: too many"] == 3)
        assert len(pair.relay) == 3
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port, local_address="127.0.1.1")
        await stream.send_all(b"\0\1b")
        await until(lambda: pair.at_relay.got[-1][1] == b"b")
        for each in (*streams, stream):
            await each.aclose()
        await until(lambda: not len(pair.relay))
        assert not pair.relay._by_owner


async def test_a_flood_of_the_smallest_records_is_read_no_faster_than_the_limit() -> None:
    """Three bytes cost their sender next to nothing, and us a turn of the core."""
    async with running() as pair:
        streams = [await trio.open_tcp_stream("127.0.0.1", pair.port) for _ in range(3)]
        began = trio.current_time()
        for stream in streams:
            await stream.send_all(b"\0\1x" * 3000)
        turns = 0
        while trio.current_time() < began + 0.5:
            await trio.sleep(0.005)
            turns += 1
        seconds = trio.current_time() - began
        limit = relay_tcp.RECORDS_BURST + relay_tcp.RECORDS_PER_SECOND * seconds
        assert relay_tcp.RECORDS_BURST <= len(pair.at_relay.got) <= limit, "all connections of an address together"
        assert turns > 10, "the other tasks had their turn"
        assert pair.relay.counters["tcp read slower"]
        far = await trio.open_tcp_stream("127.0.0.1", pair.port, local_address="127.0.1.1")
        await far.send_all(b"\0\1y")
        await until(lambda: any(data == b"y" for _, data in pair.at_relay.got))
        for stream in (*streams, far):
            await trio.aclose_forcefully(stream)


async def test_who_connects_anew_has_no_more_to_say() -> None:
    async with running() as pair:
        began = trio.current_time()
        for _ in range(5):
            stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
            await stream.send_all(b"\0\1x" * 400)
            await trio.sleep(0.03)
            await trio.aclose_forcefully(stream)
        seconds = trio.current_time() - began
        assert len(pair.at_relay.got) <= relay_tcp.RECORDS_BURST + relay_tcp.RECORDS_PER_SECOND * seconds


async def test_a_relay_that_floods_who_connects_to_it_is_read_no_faster() -> None:
    async with running() as pair:
        pair.paths.send(trio.current_time(), pair.place, b"hello")
        await until(lambda: pair.at_relay.got)
        place, began = pair.at_relay.got[0][0], trio.current_time()
        connection = pair.relay._connections[place]
        await connection._stream.send_all(b"\0\1x" * 3000)
        await trio.sleep(0.2)
        limit = relay_tcp.RECORDS_BURST + relay_tcp.RECORDS_PER_SECOND * (trio.current_time() - began)
        assert relay_tcp.RECORDS_BURST <= len(pair.at_paths.got) <= limit


async def test_a_connection_without_a_usable_address_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux does not hand one from port 0 on; others may."""
    seen: list[object] = []
    true_endpoint = relay_tcp._endpoint_of

    def from_port_0(name: tuple[str, int]) -> Endpoint:
        seen.append(name)
        return true_endpoint((name[0], 0) if len(seen) == 1 else name)

    monkeypatch.setattr(relay_tcp, "_endpoint_of", from_port_0)
    async with running() as pair:
        odd = await trio.open_tcp_stream("127.0.0.1", pair.port)
        with trio.fail_after(5):
            assert await odd.receive_some(1) == b""
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await stream.send_all(b"\0\1a")
        await until(lambda: pair.at_relay.got)
        assert pair.relay.counters["tcp refused: no address"] == 1
        for each in (odd, stream):
            await each.aclose()


async def test_other_peoples_services_are_not_connected_to_whoever_names_them() -> None:
    """A hello, a grant or a record may name any port as a relay's."""
    side = Side()
    paths = TcpPaths(side.deliver, side.gone)
    async with trio.open_nursery() as nursery:
        await nursery.start(paths.run)
        for port in (1, 22, 25, 80, 1023):
            paths.send(trio.current_time(), tcp_place(endpoint("127.0.0.1", port), 0), b"hello")
        assert len(paths) == 0
        assert paths.counters == {"tcp refused: other people's service": 5}
        nursery.cancel_scope.cancel()


async def test_who_is_bound_to_an_address_connects_from_there() -> None:
    side = Side()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    paths = TcpPaths(side.deliver, side.gone, {4: "127.0.0.2"})
    async with trio.open_nursery() as nursery:
        await nursery.start(paths.run)
        place = tcp_place(endpoint("127.0.0.1", listeners[0].socket.getsockname()[1]), 0)
        paths.send(trio.current_time(), place, b"hello")
        stream = await listeners[0].accept()
        assert stream.socket.getpeername()[0] == "127.0.0.2"
        nursery.cancel_scope.cancel()
    for each in (stream, *listeners):
        await each.aclose()


def test_a_relay_listens_at_443_or_where_it_can() -> None:
    assert ports_to_try("auto", 6881) == (443, 6881, 0)
    assert ports_to_try("auto", 53) == (443, 0), "other people's services are left alone"
    assert ports_to_try("off", 6881) == ()
    assert ports_to_try(8443, 6881) == (8443,)


async def test_a_port_that_is_taken_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        listeners, found, problem = listen((4,), {4: "127.0.0.1"}, (port, 0))
        assert len(listeners) == 1
        assert found not in (0, port)
        assert not problem
        await listeners[0].aclose()
        ways = TcpWays((4,), {4: "127.0.0.1"}, (port,))
        assert ways.port is None
        assert str(port) in ways.problem
        assert ways.problem.endswith("in use")


async def test_only_tcp_places_are_ways_by_tcp() -> None:
    side = Side()
    ways = TcpWays((4,), {4: "127.0.0.1"}, (0,))
    ways.attach(side.deliver, side.gone)
    async with trio.open_nursery() as nursery:
        await nursery.start(ways.run)
        assert ways.port is not None
        where = endpoint("127.0.0.1", ways.port)
        assert not ways.send(where, b"a datagram")
        assert not ways.send(Endpoint(where + b"\x01"), b"with a low time to live")
        assert ways.send(Endpoint(tcp_place(where, 0)), b"to ourselves")
        await until(lambda: side.got)
        ((place, data),) = side.got
        assert data == b"to ourselves"
        assert ways.connections == (1, 1)
        assert ways.send(Endpoint(place), b"and back")
        await until(lambda: len(side.got) == 2)
        assert ways.send(Endpoint(tcp_place(where, 77)), b"to nobody")
        assert ways.counters["relay tcp place gone"] == 1
        nursery.cancel_scope.cancel()
    assert tcp_ways.TCP_PORT == 443
