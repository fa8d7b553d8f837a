"""Reading a file: what is accepted, as what, and that nothing can make it raise."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.config import model
from mailserver.config.check import check
from mailserver.config.load import load, parse, read
from mailserver.config.model import BackendUse, Problem
from mailserver.config.values import as_toml

SOUND = b"""
[server]
hostname = "Mail.Example.ORG"
user = "root"
log_file = "log/mail.log"
[mail]
root = "/var/mail/domains"
[auth]
backends = ["file:/etc/mailserver/users", "strcred:memory:anna:hunter2"]
failure_delay = 2
[[domain]]
name = "Example.ORG"
hosts = ["mail.example.org", "*.Example.org"]
certificate = "certs/a.pem"
key = "/keys/a.key"
[[listener]]
protocol = "imap"
[[listener]]
protocol = "lmtp"
[[listener]]
protocol = "pop3s"
port = 1995
addresses = ["2001:DB8:0::1"]
"""


def config_of(octets: bytes) -> model.Config:
    reading = parse(octets, Path("/etc/mailserver/mailserver.toml"))
    assert reading.problems == ()
    assert reading.config is not None
    return reading.config


def lines_of(octets: bytes) -> list[str]:
    reading = parse(octets, Path("/x.toml"))
    return [str(problem).removeprefix("/x.toml").strip() for problem in reading.problems]


class TestSound:
    def test_values(self) -> None:
        config = config_of(SOUND)
        assert config.server.hostname == "mail.example.org"
        assert config.domains[0].name == "example.org"
        assert config.domains[0].hosts == ("mail.example.org", "*.example.org")
        assert config.listeners[2].addresses == ("2001:db8::1",)
        assert (config.auth.failure_delay, type(config.auth.failure_delay)) == (2.0, float)

    def test_relative_paths_are_taken_from_the_directory_of_the_file(self) -> None:
        config = config_of(SOUND)
        assert config.domains[0].certificate == Path("/etc/mailserver/certs/a.pem")
        assert config.domains[0].key == Path("/keys/a.key")
        assert config.server.log_file == Path("/etc/mailserver/log/mail.log")

    def test_tables_know_their_place(self) -> None:
        config = config_of(SOUND)
        assert [listener.place for listener in config.listeners] == ["[listener 1]", "[listener 2]", "[listener 3]"]
        assert config.source == Path("/etc/mailserver/mailserver.toml")

    def test_what_is_bound(self) -> None:
        imap, lmtp, pop3s = config_of(SOUND).listeners
        assert (imap.tcp_port, imap.bind_addresses) == (143, ("0.0.0.0", "::"))
        assert (lmtp.tcp_port, lmtp.bind_addresses) == (24, ("127.0.0.1", "::1"))
        assert (pop3s.tcp_port, pop3s.bind_addresses) == (1995, ("2001:db8::1",))

    def test_byte_order_mark(self) -> None:
        assert config_of(b"\xef\xbb\xbf" + SOUND)

    def test_it_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            config_of(SOUND).imap.timeout = 1  # type: ignore[misc]


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        config, problems = load(tmp_path / "missing.toml")
        assert config is None
        assert [str(one) for one in problems] == [f"{tmp_path}/missing.toml: cannot be read: No such file or directory"]

    def test_not_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path, tmp_path / "fifo"):
            config, problems = load(path)
            assert config is None
            assert [one.reason for one in problems] == ["must be a regular file"]

    def test_too_big(self, tmp_path: Path) -> None:
        (tmp_path / "big.toml").write_bytes(b"#" * ((1 << 20) + 1))
        assert [one.reason for one in load(tmp_path / "big.toml")[1]] == ["must be at most 1048576 octets"]

    def test_load_is_read_without_problems(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_bytes(SOUND)
        (tmp_path / "b.toml").write_bytes(SOUND + b"[imap]\ntimeout = 1\n")
        assert load(tmp_path / "a.toml") == (read(tmp_path / "a.toml").config, [])
        assert load(tmp_path / "b.toml")[0] is None
        assert read(tmp_path / "b.toml").config is not None


class TestProblems:
    def test_form(self) -> None:
        problem = Problem("a.toml", "[imap] timout", "3", "no such key", "timeout")
        assert str(problem) == "a.toml [imap] timout = 3: no such key; did you mean 'timeout'?"
        assert str(Problem("a.toml", "", "", "is not TOML")) == "a.toml: is not TOML"
        assert str(Problem("a.toml", "[x] y", "", "old", warning=True)) == "a.toml [x] y: warning: old"

    def test_tables_left_out_are_counted(self) -> None:
        """The second listener cannot be read; the fourth's clash with the third is told by their places in the file."""
        more = b"[[listener]]\n[[listener]]\nprotocol = 'imaps'\n[[listener]]\nprotocol = 'pop3'\nport = 993\n"
        assert lines_of(SOUND + more) == [
            '[listener 4] protocol: is missing; an example: "imaps"',
            "[listener 6] port = 993: port 993 is already bound by [listener 5] on 0.0.0.0",
        ]

    def test_what_depends_on_a_lost_name_is_not_judged(self) -> None:
        text = SOUND.replace(b'name = "Example.ORG"', b"name = 5") + b"[tls]\ndefault = 'mail.example.org'\n"
        text = text.replace(b"failure_delay", b"default_domain = 'example.org'\nfailure_delay")
        assert lines_of(text) == ["[domain 1] name = 5: must be text in quotes, not a whole number"]

    def test_warnings_do_not_hinder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        warning = Problem("x", "", "", "hm", warning=True)
        monkeypatch.setattr("mailserver.config.check.CHECKS", (lambda _config, _partial: iter([warning]),))
        (tmp_path / "a.toml").write_bytes(SOUND)
        config, problems = load(tmp_path / "a.toml")
        assert config is not None
        assert problems == [warning]

    def test_root_needs_a_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 0)
        text = SOUND.replace(b'user = "root"', b"")
        told = '[server] user: is missing; a service started as root needs it, even if it is "root"'
        assert lines_of(text) == [told]
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        assert lines_of(text) == []

    def test_more_problems_of_broken_places_are_left_out(self) -> None:
        reading = parse(SOUND + b"[imap]\ntimeout = '1'\n", Path("/x.toml"))
        other = Problem("/x.toml", "[domain 1] key", "", "cannot be read")
        same = Problem("/x.toml", "[imap] timeout", "", "whatever")
        assert reading.with_problems([other, same, other]) == [*reading.problems, other]

    @pytest.mark.parametrize("hostile", ["\x1b[31m", "\x9b", "\r\n", "\u202e", "\0"])
    def test_a_line_is_one_line_whatever_the_file_holds(self, hostile: str) -> None:
        text = SOUND + f"[imap]\nliteral = {as_toml(hostile)}\n{as_toml(hostile)} = 1\n".encode()
        lines = lines_of(text)
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ('a "b" \n', '"a \\"b\\" \\n"'),
            ("x" * 100, '"' + "x" * 56 + "..."),
            ([1, "a"], '[1, "a"]'),
            (True, "true"),
            ({"a": 1}, ""),
        ],
    )
    def test_values_are_shown_on_one_line(self, value: object, shown: str) -> None:
        assert as_toml(value) == shown


# Whatever TOML holds: kinds that are wrong, in places that exist.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["imap", "imaps", "127.0.0.1", "example.org", "*.example.org", "{user}", "%u"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: value is not None)
keys = st.sampled_from(
    [
        "hostname",
        "user",
        "root",
        "location",
        "special_use",
        "backends",
        "name",
        "hosts",
        "certificate",
        "key",
        "protocol",
        "port",
        "addresses",
        "socket",
        "relay",
        "host",
        "timeout",
        "default",
        "ciphers",
        "nonsense",
    ]
)
tables = st.dictionaries(keys, values, max_size=5)
documents = st.dictionaries(
    st.sampled_from(["server", "mail", "auth", "domain", "listener", "tls", "imap", "submission", "other"]),
    tables | st.lists(tables, max_size=3) | values,
    max_size=8,
)


@given(documents)
@settings(max_examples=150, deadline=None)
def test_any_document_gives_a_config_or_problems(document: dict) -> None:
    import tomlkit

    try:
        octets = tomlkit.dumps(document).encode()
        tomllib.loads(octets.decode())
    except ValueError:
        return  # Not every document of these can be written.
    reading = parse(octets, Path("/x.toml"))
    assert reading.config is not None
    # The required tables are never all there, so something is always told, on a line each.
    assert reading.problems
    for problem in reading.problems:
        assert str(problem).isprintable()
    check(reading.config)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=150, deadline=None)
def test_any_octets_give_problems(octets: bytes) -> None:
    assert parse(octets, Path("/x.toml")).problems


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("file:users", "file:/etc/mailserver/users"),
        ("directory:users.db", "directory:/etc/mailserver/users.db"),
        ("directory:~/users.db", "directory:~/users.db"),
        ("file:../users", "file:/etc/mailserver/../users"),
        ("file:/users", "file:/users"),
        # Neither is a path that could be meant: the back end refuses them.
        ("file:~/users", "file:~/users"),
        ("file:", "file:"),
        ("memory:anna=file:x", "memory:anna=file:x"),
    ],
)
def test_a_users_file_is_taken_from_the_directory_too(written: str, taken: str) -> None:
    backends = b'backends = ["file:/etc/mailserver/users", "strcred:memory:anna:hunter2"]'
    config = config_of(SOUND.replace(backends, f"backends = ['{written}']".encode()))
    assert [each.use for each in config.auth.backends] == [taken]


def _with_backends(written: str) -> bytes:
    backends = b'backends = ["file:/etc/mailserver/users", "strcred:memory:anna:hunter2"]'
    assert backends in SOUND
    return SOUND.replace(backends, f"backends = [{written}]".encode())


@pytest.mark.parametrize("separator", ["ab", "@", "a", "-", "+", " ", "/", "*\n"])
def test_a_separator_that_stands_in_names_is_refused(separator: str) -> None:
    written = json.dumps(separator).encode()
    (line,) = lines_of(SOUND.replace(b"[auth]\n", b"[auth]\nmaster_separator = " + written + b"\n"))
    assert line.startswith("[auth] master_separator")


def test_a_separator() -> None:
    config = config_of(SOUND.replace(b"[auth]\n", b'[auth]\nmaster_separator = "*"\n'))
    assert config.auth.master_separator == "*"


def test_a_back_end_may_have_settings() -> None:
    written = '"file:users", {use = "ldap:x", domains = ["Example.ORG"], time = 2, calls = 4, cache = 60}'
    config = config_of(_with_backends(written))
    assert config.auth.backends == (
        BackendUse("file:/etc/mailserver/users"),
        BackendUse("ldap:x", ("example.org",), 2.0, 4, 60.0),
    )
    assert config_of(_with_backends('{use = "file:users", domains = ["example.org"]}')).auth.backends == (
        BackendUse("file:/etc/mailserver/users", ("example.org",)),
    )


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("5", "must be text in quotes or a table with the key use, not a whole number"),
        ("{domains = ['example.org']}", "a table needs the key use"),
        ("{use = 'ldap:hunter2', domain = 'example.org'}", "use, domains, time, calls, cache, and not 'domain'"),
        ("{use = 'ldap:hunter2', domains = 'example.org'}", "domains of ldap must be an array in square brackets"),
        ("{use = 'ldap:hunter2', domains = []}", "domains of ldap must name at least one"),
        ("{use = 'ldap:hunter2', domains = ['a b']}", "domains of ldap must be a host name"),
        ("{use = 'ldap:hunter2', time = 0}", "time of ldap must be"),
        ("{use = 'ldap:hunter2', time = 61}", "time of ldap must be at most 60 seconds"),
        ("{use = 'ldap:hunter2', time = '5'}", "time of ldap must be"),
        ("{use = 'ldap:hunter2', calls = 0}", "calls of ldap must be at least 1"),
        ("{use = 'ldap:hunter2', calls = 257}", "calls of ldap must be at most 256"),
        ("{use = 'ldap:hunter2', cache = -1}", "cache of ldap must be from 0, which is never, to 600 seconds"),
        ("{use = 'ldap:hunter2', cache = 3600}", "cache of ldap must be from 0, which is never, to 600 seconds"),
        ("{use = 'ldap:hunter2', cache = true}", "cache of ldap must be a number of seconds"),
        ("{use = 'file:hunter2', cache = 60}", "file answers at once, from this machine"),
        ("{use = 'directory:/hunter2', time = 2}", "directory answers at once, from this machine"),
        ("{use = 'hunter2 word:x'}", "number 1 must be NAME:ARGUMENT"),
    ],
)
def test_a_wrong_setting_of_a_back_end_is_named_without_its_argument(written: str, words: str) -> None:
    (line,) = lines_of(_with_backends(written))
    assert line.startswith("[auth] backends")
    assert words in line
    assert "hunter2" not in line


@pytest.mark.parametrize(("written", "meant"), [("smtp", "submission"), ("SMTPS", "submissions"), ("imap4", "imap")])
def test_a_protocol_by_another_name(written: str, meant: str) -> None:
    (line,) = lines_of(SOUND.replace(b'"imap"', f'"{written}"'.encode()))
    assert line.startswith(f'[listener 1] protocol = "{written}": must be')
    assert line.endswith(f"did you mean '{meant}'?")
