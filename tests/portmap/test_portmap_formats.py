"""PCP, NAT-PMP and HTTP byte for byte as the RFCs draw them, and every parser against anything."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.endpoints import is_private
from meshcall.errors import BadPacket
from meshcall.portmap import http, natpmp, pcp, upnp
from meshcall.portmap.grant import Gateway, is_unreachable
from meshcall.portmap.xml import read_xml

NONCE = bytes(range(12))
LOCAL = b"\xc0\x00\x02\x21"

# RFC 6887 figures 2 and 9: version 2, MAP, lifetime, client; nonce, protocol 17, ports, suggested address.
MAP_REQUEST = bytes.fromhex(
    "02 01 0000 00001c20 00000000000000000000ffff c0000221"
    "000102030405060708090a0b 11 000000 9cbb 0000 00000000000000000000ffff 00000000"
)
# Figures 3 and 10: R set, result 0, lifetime 3600, epoch 4660, 96 reserved bits; assigned port and address.
MAP_RESPONSE = bytes.fromhex(
    "02 81 00 00 00000e10 00001234 000000000000000000000000"
    "000102030405060708090a0b 11 000000 9cbb d903 00000000000000000000ffff cb007107"
)


def test_a_map_request_is_drawn_as_in_rfc_6887() -> None:
    assert pcp.encode_map(LOCAL, NONCE, 0x9CBB, 7200) == MAP_REQUEST
    with_wish = pcp.encode_map(LOCAL, NONCE, 0x9CBB, 7200, endpoint("203.0.113.7", 0xD903))
    assert with_wish[42:] == bytes.fromhex("d903 00000000000000000000ffff cb007107")


def test_a_map_request_for_ipv6() -> None:
    local = bytes.fromhex("20010db8000000000000000000000064")
    data = pcp.encode_map(local, NONCE, 1234, 0)
    assert len(data) == 60
    assert data[8:24] == local
    assert data[4:8] == bytes(4)
    assert data[42:60] == bytes(18)


def test_a_map_response_is_read_as_in_rfc_6887() -> None:
    response = pcp.decode_response(MAP_RESPONSE)
    assert response == pcp.Response(
        2, 1, 0, 3600, 4660, nonce=NONCE, protocol=17, inner_port=0x9CBB, outside=endpoint("203.0.113.7", 0xD903)
    )


def test_an_error_may_be_a_header_only() -> None:
    response = pcp.decode_response(bytes.fromhex("02 81 00 02 00000708 00000001 000000000000000000000000"))
    assert (response.result, response.lifetime, response.outside) == (2, 1800, None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (MAP_RESPONSE[:23], "pcp length"),
        (MAP_RESPONSE + b"\x00", "pcp length"),
        (MAP_RESPONSE[:56], "pcp length"),
        (MAP_RESPONSE + bytes(1044), "pcp length"),
        (MAP_REQUEST, "pcp not a response"),
        (b"\x02\x82" + MAP_RESPONSE[2:], "pcp opcode"),
    ],
)
def test_a_malformed_pcp_response(data: bytes, reason: str) -> None:
    with pytest.raises(BadPacket, match=reason):
        pcp.decode_response(data)


def test_a_nat_pmp_gateway_is_known_by_its_answer_to_pcp() -> None:
    assert pcp.is_natpmp_answer(bytes.fromhex("00 81 0001 00000010"))
    assert not pcp.is_natpmp_answer(bytes.fromhex("00 81 0000 00000010"))
    assert not pcp.is_natpmp_answer(MAP_RESPONSE)


def test_nat_pmp_is_drawn_as_in_rfc_6886() -> None:
    assert bytes.fromhex("0000") == natpmp.ADDRESS_REQUEST
    assert natpmp.encode_map(0x9CBB, 7200, 0x9CBB) == bytes.fromhex("00 01 0000 9cbb 9cbb 00001c20")
    assert natpmp.encode_map(0x9CBB, 0) == bytes.fromhex("00 01 0000 9cbb 0000 00000000")
    address = natpmp.decode_answer(bytes.fromhex("00 80 0000 00001234 cb007107"))
    assert address == natpmp.AddressAnswer(0, 0x1234, bytes((203, 0, 113, 7)))
    mapped = natpmp.decode_answer(bytes.fromhex("00 81 0000 00001234 9cbb d903 00000e10"))
    assert mapped == natpmp.MapAnswer(0, 0x1234, 0x9CBB, 0xD903, 3600)


@pytest.mark.parametrize(
    "data",
    ["", "0080", "00800000000012", "0080000000001234", "0081000000001234", "0281000000001234", "0083000000001234",
     "0082000000001234", "00" * 65],
)  # fmt: skip
def test_a_malformed_nat_pmp_answer(data: str) -> None:
    with pytest.raises(BadPacket):
        natpmp.decode_answer(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("steps", "restarted"),
    [
        ([(0, 100), (60, 160)], False),
        ([(0, 100), (60, 99)], True),
        ([(0, 100), (0, 99)], False),  # one second back is reordering (RFC 6887 section 8.5)
        ([(0, 100), (160, 250)], False),  # a clock slower by a sixteenth
        ([(0, 100), (160, 200)], True),
        ([(0, 100), (100, 500)], True),  # too far ahead: another gateway
    ],
)
def test_the_pcp_epoch_shows_a_restart(steps: list[tuple[float, int]], restarted: bool) -> None:
    watch = pcp.EpochWatch()
    assert [watch.is_restarted(*step) for step in steps][-1] is restarted


def test_the_nat_pmp_epoch_shows_a_restart() -> None:
    watch = natpmp.EpochWatch()
    assert not watch.is_restarted(0, 100)
    assert not watch.is_restarted(80, 168)  # 7/8 of the time, less two seconds (RFC 6886 section 3.6)
    assert watch.is_restarted(160, 235)


@pytest.mark.parametrize(
    ("text", "where", "path"),
    [
        ("http://192.168.1.1/desc.xml", "192.168.1.1:80", "/desc.xml"),
        ("http://192.168.1.1:5000", "192.168.1.1:5000", "/"),
        ("http://192.168.1.1:5000/a?b=c#d", "192.168.1.1:5000", "/a?b=c"),
    ],
)
def test_an_url(text: str, where: str, path: str) -> None:
    url = http.parse_url(text)
    assert (url.to, url.path) == (endpoint(*_split(where)), path)


def _split(where: str) -> tuple[str, int]:
    host, _, port = where.partition(":")
    return host, int(port)


@pytest.mark.parametrize(
    "text",
    ["https://192.168.1.1/", "http://gateway.example/", "http://a@192.168.1.1/", "http://192.168.1.1:0/", "",
     "http://192.168.1.1:70000/", "http://192.168.1.256/", "http://192.168.1.1/a b", "http://192.168.1.1/\r\nX: y",
     "http://192.168.1.1:22/", "http://192.168.1.1:25/", "http://192.168.1.1:1023/",
     "http://[fe80::1]/", "file:///etc/passwd", "http://192.168.1.1/" + "a" * 2000],
)  # fmt: skip
def test_an_url_that_is_not_followed(text: str) -> None:
    with pytest.raises(BadPacket):
        http.parse_url(text)


def test_a_reference_stays_on_its_host() -> None:
    url = http.parse_url("http://192.168.1.1:5000/a/desc.xml")
    assert url.join("ctl").path == "/a/ctl"
    assert url.join("/ctl?x=1").path == "/ctl?x=1"
    assert url.join("http://192.168.1.1:80/ctl").to == endpoint("192.168.1.1", 80)
    with pytest.raises(BadPacket, match="another service"):
        url.join("http://192.168.1.1:631/ctl")
    for bad in ("http://192.168.1.2/ctl", "//192.168.1.2/ctl", "ftp://192.168.1.1/", "/a b", "/a\r\nb", "http://["):
        with pytest.raises(BadPacket):
            url.join(bad)


def test_http_bodies() -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    assert http.parse_response(head + b"Content-Length: 3\r\n\r\nabcd") == (200, b"abc")
    assert http.parse_response(head + b"\r\nabcd") == (200, b"abcd")
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n"
    assert http.parse_response(chunked) == (200, b"abc")
    assert http.is_whole(chunked)
    assert not http.is_whole(chunked[:-8])
    assert not http.is_whole(head + b"\r\nabc"), "the end is the end of the connection"
    for bad in (head + b"Content-Length: 9\r\n\r\nabc", chunked[:-9], b"HTTP/2 200\r\n\r\n", b"", b"\r\n\r\n",
                head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n",
                head + b"Content-Length: -1\r\n\r\n", head + b"Transfer-Encoding: chunked\r\n\r\n" + b"z" * 99,
                head + b"X: " + b"y" * 9000 + b"\r\n\r\n", head + b"\r\n" + b"y" * 70_000):  # fmt: skip
        with pytest.raises(BadPacket):
            http.parse_response(bad)


@pytest.mark.parametrize(
    ("where", "nonsense", "private"),
    [
        ("203.0.113.7:6881", False, False), ("10.0.0.1:6881", False, True), ("100.64.0.1:6881", False, True),
        ("172.16.0.1:6881", False, True), ("8.8.8.8:443", False, False), ("8.8.8.8:53", True, False),
        ("0.0.0.0:6881", True, True), ("240.0.0.1:6881", True, True), ("198.18.0.1:6881", True, True),
    ],
)  # fmt: skip
def test_outside_addresses(where: str, nonsense: bool, private: bool) -> None:
    outside = endpoint(*_split(where))
    assert is_unreachable(outside, 4) is nonsense
    assert is_private(outside) is private
    assert is_unreachable(outside, 6)


def test_outside_addresses_of_ipv6() -> None:
    assert not is_unreachable(endpoint("2001:db8::1", 6881), 6)
    assert not is_unreachable(endpoint("fd00::1", 6881), 6)
    assert is_private(endpoint("fd00::1", 6881))
    for bad in ("::", "::1", "fe80::1", "ff02::1", "2002:c000:221::1", "64:ff9b::1"):
        assert is_unreachable(endpoint(bad, 6881), 6), bad


def test_a_neighbour_is_in_the_gateways_24() -> None:
    gateway = Gateway(b"\xc0\xa8\x01\x01", b"\xc0\xa8\x01\x64")
    assert gateway.is_near(endpoint("192.168.1.200", 80))
    assert not gateway.is_near(endpoint("192.168.2.1", 80))
    assert not Gateway(b"\xfe\x80" + bytes(14), bytes(16)).is_near(endpoint("fe80::", 80))


@given(st.binary(max_size=200))
def test_no_datagram_raises_anything_else(data: bytes) -> None:
    for parser in (pcp.decode_response, natpmp.decode_answer):
        with contextlib.suppress(BadPacket):
            parser(data)
    pcp.is_natpmp_answer(data)
    with contextlib.suppress(BadPacket):
        upnp.decode_search_answer(endpoint("192.168.1.1", 1900), b"HTTP/1.1 200 OK\r\n" + data)


@given(st.binary(max_size=59), st.integers(0, 255), st.integers(0, 4))
def test_pcp_like_datagrams(tail: bytes, result: int, opcode: int) -> None:
    with contextlib.suppress(BadPacket):
        response = pcp.decode_response(bytes((2, 0x80 | opcode, 0, result)) + tail)
        assert response.outside is None or len(response.outside) in (6, 18)


@given(st.binary(max_size=300), st.sampled_from([b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]))
def test_no_http_response_raises_anything_else(data: bytes, extra: bytes) -> None:
    for whole in (data, b"HTTP/1.1 200 OK\r\n" + extra + b"\r\n" + data):
        http.is_whole(whole)
        with contextlib.suppress(BadPacket):
            http.parse_response(whole)


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_url_raises_anything_else_or_leaves_its_host(text: str, reference: str) -> None:
    with contextlib.suppress(BadPacket):
        http.parse_url("http://" + text)
    url = http.parse_url("http://192.168.1.1/x")
    with contextlib.suppress(BadPacket):
        joined = url.join(reference)
        assert joined.to[:-2] == Endpoint(url.to[:-2])
        assert "\r" not in joined.path
        assert " " not in joined.path


tags = st.sampled_from(["root", "service", "serviceType", "controlURL", "URLBase", "errorCode", "x:AddResponse"])
texts = st.one_of(st.text(max_size=20), st.sampled_from(upnp.SERVICES), st.just("/ctl"))


@given(
    st.lists(st.tuples(st.sampled_from(["<{}>", "</{}>", "<{}/>"]), tags, texts), max_size=30), st.binary(max_size=30)
)
def test_no_xml_raises_anything_else(pieces: list[tuple[str, str, str]], noise: bytes) -> None:
    text = "<root>" + "".join(form.format(tag) + words for form, tag, words in pieces)
    for data in (noise, text.encode(errors="replace"), text.encode(errors="replace") + b"</root>"):
        with contextlib.suppress(BadPacket):
            read_xml(data)
        with contextlib.suppress(BadPacket):
            for service in upnp.decode_description(http.parse_url("http://192.168.1.1/"), data):
                assert service.control.to[:-2] == b"\xc0\xa8\x01\x01"
        with contextlib.suppress(BadPacket, upnp.Fault):
            fields = upnp.decode_action_answer(200, data)
            upnp.decode_reserved_port(fields, 1)
            upnp.decode_address(fields)
