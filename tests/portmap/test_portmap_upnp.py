"""UPnP: the odd gateways there are (old, new, full, permanent), and the hostile ones."""

from __future__ import annotations

import pytest

from meshcall.core import Endpoint, endpoint
from meshcall.errors import BadPacket
from meshcall.portmap import upnp
from meshcall.portmap.http import parse_url
from meshcall.portmap.mapper import Mapped
from meshcall.portmap.xml import DEPTH_MAX, ELEMENTS_MAX, XML_BYTES_MAX, read_xml
from tests.portmap.fake_gateway import DESCRIPTION, LAUGHS, FakeGateway
from tests.portmap.mapper_world import GATEWAY, PORT, World

URL = parse_url("http://192.168.1.1:5000/desc.xml")


def igd(**knobs: object) -> World:
    fake = FakeGateway(speaks=("upnp",))
    for name, value in knobs.items():
        setattr(fake, name, value)
    world = World(fake)
    world.join()
    world.run(20)
    return world


def outside(world: World) -> Endpoint | None:
    return None if world.mapper.mapped is None else world.mapper.mapped.outside


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_the_service(version: int) -> None:
    world = igd(igd_version=version)
    assert world.events == [Mapped(endpoint("203.0.113.7", PORT), "upnp", private=False)]
    assert len(world.asked) == 3
    assert (b"AddAnyPortMapping" in world.asked[-1][1]) is (version == 2)


def test_a_taken_port_is_left_to_its_owner() -> None:
    world = igd(taken={PORT})
    found = outside(world)
    assert found is not None
    assert found != endpoint("203.0.113.7", PORT)
    assert igd(taken={PORT}, igd_version=2).mapper.mapped == Mapped(endpoint("203.0.113.7", PORT + 1), "upnp", False)


def test_a_gateway_full_of_mappings_is_not_searched_through() -> None:
    world = igd(taken=set(range(65_536)))
    assert outside(world) is None
    assert sum(b"AddPortMapping" in data for _, data in world.asked) == 5
    assert world.mapper.counters["upnp conflict"] == 1


def test_permanent_leases_are_taken_where_there_are_no_others_and_looked_after() -> None:
    world = igd(permanent_only=True)
    assert outside(world) == endpoint("203.0.113.7", PORT)
    assert world.fake.log[-1][-1] == "1", "asked without an end"
    adds = len(world.fake.log)
    world.fake.restart(world.now)
    world.run(2000)
    assert len(world.fake.log) == adds + 1
    world.mapper.stop(world.now)
    world.carry()
    assert world.fake.log[-1] == ("deleted", "upnp", str(PORT))


def test_a_gateway_started_anew_with_another_url_is_found_again() -> None:
    world = igd()
    world.fake.control = "/other"
    world.fake.restart(world.now)
    world.run(4500)
    assert PORT in world.fake.mappings
    assert len(world.events) == 1


def test_a_gateway_without_connection_is_not_asked_for_a_port() -> None:
    world = igd(outside="0.0.0.0")
    assert outside(world) is None
    assert not any(b"AddPortMapping" in data for _, data in world.asked)


def test_no_redirect_is_followed() -> None:
    world = igd(redirect=True)
    assert outside(world) is None
    assert world.mapper.counters["http redirect"] == 1
    assert len(world.asked) == 1


def search_answer(location: str, target: str = upnp.SEARCH_TARGETS[0]) -> bytes:
    return f"HTTP/1.1 200 OK\r\nSt:{target}\r\nLocation: {location}\r\n\r\n".encode()


def searching() -> World:
    world = World(FakeGateway(speaks=()))
    world.mapper.set_gateway(world.now, GATEWAY)
    world.mapper.refused(world.now)
    world.mapper.refused(world.now)
    world.mapper.outbox.clear()
    return world


def test_a_search_answer_from_elsewhere_is_dropped() -> None:
    world = searching()
    mapper = world.mapper
    mapper.receive(world.now, endpoint("192.168.2.1", 1900), search_answer("http://192.168.2.1/d"))
    mapper.receive(world.now, endpoint("192.168.1.100", 1900), search_answer("http://192.168.1.100/d"))  # ourselves
    assert mapper.counters["wrong source"] == 2
    mapper.receive(world.now, endpoint("192.168.1.9", 1900), search_answer("http://192.168.1.1/d"))
    mapper.receive(world.now, GATEWAY.at(1900), search_answer("http://203.0.113.9/d"))
    assert mapper.counters["ssdp url of another host"] == 2
    mapper.receive(world.now, GATEWAY.at(1900), search_answer("http://192.168.1.1/d", "upnp:rootdevice"))
    assert mapper.counters["ssdp another target"] == 1
    assert not mapper.requests


def test_the_gateway_goes_before_its_neighbours() -> None:
    world = searching()
    for last in range(20, 60):
        world.mapper.receive(
            world.now, endpoint(f"192.168.1.{last}", 1900), search_answer(f"http://192.168.1.{last}/d")
        )
    assert not world.mapper.requests
    world.mapper.wake(world.now + 1.5)
    asked = []
    for _ in range(50):
        for request in world.mapper.requests[:]:
            world.mapper.requests.clear()
            asked.append(request.to)
            world.mapper.failed(world.now + 2, request.number, "http no connection")
    assert len(asked) == 4
    other = searching()
    other.mapper.receive(other.now, endpoint("192.168.1.20", 1900), search_answer("http://192.168.1.20/d"))
    other.mapper.receive(other.now, GATEWAY.at(1900), search_answer("http://192.168.1.1:9900/d"))
    assert [request.to for request in other.mapper.requests] == [GATEWAY.at(9900)]


def test_a_control_url_of_another_host_is_refused() -> None:
    for control in ("http://192.168.1.77/ctl", "//203.0.113.1/ctl", "http://example.com/"):
        with pytest.raises(BadPacket):
            upnp.decode_description(URL, DESCRIPTION.format(version=1, control=control).encode())
    bad_base = DESCRIPTION.format(version=1, control="/c").replace(
        "<device>", "<URLBase>http://1.2.3.4</URLBase><device>", 1
    )
    with pytest.raises(BadPacket, match="another host"):
        upnp.decode_description(URL, bad_base.encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (LAUGHS.encode(), "xml with dtd"),
        (LAUGHS.encode("utf-16"), "xml encoding"),
        (b"<?xml version='1.0' encoding='utf-16'?>" + LAUGHS.encode(), "xml with dtd"),
        (b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><root>&x;</root>', "xml with dtd"),
        (b'<!DOCTYPE r SYSTEM "http://192.168.1.1/x.dtd"><root/>', "xml with dtd"),
        (b"<root>&x;</root>", "xml form"),
        (b"<root>" * (DEPTH_MAX + 1), "xml too deep"),
        (b"<root>" + b"<a/>" * ELEMENTS_MAX + b"</root>", "xml too many elements"),
        (b"<root>" + b" " * XML_BYTES_MAX + b"</root>", "xml too long"),
        (b"<root><a></root>", "xml form"),
        (b"", "xml form"),
        (b"<?xml version='1.0' encoding='utf-7'?><root>+ADwAIQ-DOCTYPE+AD4</root>", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_hostile_xml(data: bytes, reason: str) -> None:
    if not reason:  # read as UTF-8 whatever it claims: harmless text
        assert read_xml(data)[0].name == "root"
        return
    with pytest.raises(BadPacket, match=reason):
        read_xml(data)


def test_latin_1_and_a_byte_order_mark_are_read() -> None:
    text = DESCRIPTION.format(version=1, control="/c").replace("<specVersion>", "<maker>Müller</maker><specVersion>")
    for data in (text.encode("latin-1"), text.encode("utf-8-sig"), text.encode() + b"\r\n\x00"):
        assert [service.kind for service in upnp.decode_description(URL, data)] == [upnp.SERVICES[1]]


def test_faults_have_names() -> None:
    for code in (718, 725, 724, 606, 9, 99_999_999):
        body = f"<e><Body><Fault><errorCode>{code}</errorCode></Fault></Body></e>".encode()
        with pytest.raises(upnp.Fault) as caught:
            upnp.decode_action_answer(500, body)
        assert caught.value.reason.startswith("upnp ")
    with pytest.raises(upnp.Fault, match="0"):
        upnp.decode_action_answer(500, b"<e><Fault/></e>")
    with pytest.raises(BadPacket):
        upnp.decode_action_answer(200, b"<e/>")


def test_a_description_cannot_put_words_into_our_requests() -> None:
    service = upnp.Service(upnp.SERVICES[1], URL)
    data = upnp.encode_add(service, b"\xc0\xa8\x01\x64", PORT, PORT, 7200)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /desc.xml HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"<NewInternalClient>192.168.1.100</NewInternalClient>" in body
    assert [each.name for each in read_xml(body)][:3] == ["Envelope", "Body", "AddPortMapping"]
