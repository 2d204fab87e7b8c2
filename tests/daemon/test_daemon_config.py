"""The configuration: defaults, and that each mistake is named with its file, its key and its cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.config import DEFAULT_TEXT, Config, host_and_port, load, parse
from meshcall.errors import ConfigError, UsageError
from tests.daemon.processes import meshcall


def test_the_printed_default_is_the_default() -> None:
    assert parse(DEFAULT_TEXT, "default") == Config()
    printed = meshcall("up", "--print-config")
    assert printed.stdout == DEFAULT_TEXT


def test_every_key_is_in_the_printed_default_with_a_comment() -> None:
    import msgspec

    for section in msgspec.structs.fields(Config):
        assert f"[{section.name}]" in DEFAULT_TEXT
        for field in msgspec.structs.fields(section.type):
            assert f"\n{field.name} = " in DEFAULT_TEXT


def test_an_empty_file_is_the_default() -> None:
    assert parse("", "x") == Config()


def test_values_are_read() -> None:
    text = """
    [network]
    port = 6881
    families = [6]
    private = true
    [dht]
    bootstrap = ["192.0.2.1:6881", "[2001:db8::1]:6881", "dht.example:6881"]
    reachable = "yes"
    [record]
    publish_addresses = "always"
    [log]
    format = "json"
    """
    config = parse(text, "x")
    assert config.network.port == 6881
    assert config.network.families == (6,)
    assert len(config.dht.bootstrap) == 3
    assert config.record.publish_addresses == "always"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[netwrok]\n", ["netwrok", 'did you mean "network"']),
        ("[network]\nprot = 1\n", ["[network] prot", 'did you mean "port"']),
        ("[dht]\nxyzzy = 1\n", ["[dht] xyzzy", "known are: bootstrap"]),
        ("port = 1\n", ["port", "there is no such key"]),
        ("network = 1\n", ["network", "must be a section"]),
        ('[network]\nport = "x"\n', ["[network] port", "expected int, got str"]),
        ("[network]\nport = 70000\n", ["[network] port", "0 to 65535"]),
        ("[network]\nfamilies = []\n", ["[network] families"]),
        ("[network]\nfamilies = [5]\n", ["[network] families"]),
        ("[network]\nfamilies = [4, 4]\n", ["[network] families", "twice"]),
        ('[network]\nbind_ipv4 = "::1"\n', ["[network] bind_ipv4", "not a numeric IPv4"]),
        ('[network]\nbind_ipv6 = "name"\n', ["[network] bind_ipv6", "not a numeric IPv6"]),
        ('[dht]\nbootstrap = ["x"]\n', ["[dht] bootstrap", "host:port"]),
        ('[dht]\nbootstrap = "x"\n', ["[dht] bootstrap"]),
        ("[dht]\nitems_max = 0\n", ["[dht] items_max", "at least 1"]),
        ('[dht]\nreachable = "maybe"\n', ["[dht] reachable", "maybe"]),
        ('[log]\nlevel = "loud"\n', ["[log] level", "loud"]),
        ("[network\n", ["not valid TOML", "line 1"]),
        ("[a]\n[a]\n", ["not valid TOML"]),
    ],
)
def test_mistakes_are_named(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as told:
        parse(text, "my.toml")
    sentence = str(told.value)
    assert sentence.startswith("my.toml: ")
    for part in parts:
        assert part in sentence


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*--print-config"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"not UTF-8.*byte 5"):
        load(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "huge.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "huge.toml")


def test_a_mistake_in_the_file_stops_the_start_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[network]\nprot = 1\n")
    wrong = meshcall("up", "--home", str(tmp_path), "--no-publish")
    assert wrong.returncode == 1
    assert "config.toml: [network] prot" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    option = meshcall("up", "--home", str(tmp_path / "other"), "--bootstrap", "nowhere", "--no-publish")
    assert option.returncode == 1
    assert "the command line: [dht] bootstrap" in option.stderr


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        parse(text, "x")
    except ConfigError:
        pass
    try:
        host, port = host_and_port(text)
    except UsageError:
        return
    assert host
    assert 0 < port < 65536


def test_who_may_call_is_read_and_checked() -> None:
    address = "mc1q" + "q" * 10
    with pytest.raises(ConfigError, match=r"\[contacts\] blocked"):
        parse(f'[contacts]\nblocked = ["{address}"]', "x")
    with pytest.raises(ConfigError, match=r"\[call\] auto_answer"):
        parse(f'[call]\nauto_answer = ["{address}"]', "x")
    with pytest.raises(ConfigError, match=r"\[call\] auto_answer"):
        parse('[call]\nauto_answer = "everybody"', "x")
    with pytest.raises(ConfigError, match=r"\[call\] ring"):
        parse('[call]\nring = "strangers"', "x")
    for rate in (23, 511):
        with pytest.raises(ConfigError, match="must be 24 to 510"):
            parse(f"[call]\nkbit_per_second = {rate}", "x")
    call = parse('[call]\nring = "all"\nauto_answer = []\ndirect = "never"\nkbit_per_second = 24', "x").call
    assert (call.ring, call.auto_answer, call.direct, call.kbit_per_second) == ("all", (), "never", 24)
