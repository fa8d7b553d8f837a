"""What is made from the model and from a Config: the shipped file, the reference, and --show."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs
import pytest

from mailserver.config import describe, kinds, model
from mailserver.config.load import load, parse, read
from mailserver.config.schema import keys_of
from mailserver.config.show import show
from mailserver.net.listeners.binding import places
from tests.config.test_load import SOUND

PROJECT = Path(__file__).parents[2]
ABSENT = (
    "[submission.relay]",
    "[[listener]]",
    "[[domain.site]]",
    "[[imap.hide]]",
    "[domain.mta_sts]",
    "[domain.quota]",
    "[acme]",
    "[acme.dns]",
)
"""Headers behind #."""


@pytest.mark.parametrize(
    ("path", "content"), [("etc/mailserver.toml", describe.example_file), ("docs/configuration.md", describe.reference)]
)
def test_files_are_those_of_the_model(path: str, content) -> None:
    """After a change of the model: python -m mailserver.config.describe"""
    assert (PROJECT / path).read_text(encoding="utf-8") == content()


def test_shipped_file_lacks_only_what_is_missing_on_the_machine() -> None:
    reading = read(PROJECT / "etc" / "mailserver.toml")
    assert {problem.place for problem in reading.problems} <= {"[server] user"}
    assert reading.config is not None
    # The ports of HTTP are often another server's: those are behind #.
    assert {listener.protocol for listener in reading.config.listeners} == set(kinds.PORTS) - {"http", "https"}


def test_the_socket_unit_has_the_places_of_the_shipped_file() -> None:
    """With any other the server would not start."""
    config = read(PROJECT / "etc" / "mailserver.toml").config
    assert config is not None
    unit = (PROJECT / "etc" / "mailserver.socket").read_text(encoding="utf-8")
    handed_over = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("ListenStream=")]
    assert sorted(handed_over) == sorted(place for listener in config.listeners for place in places(listener))


def test_every_key_uncommented_is_its_default(tmp_path: Path) -> None:
    """What stands behind # is a value that the file takes, and, where it is the default, changes nothing."""
    lines = []
    for line in describe.example_file().splitlines():
        bare = line.removeprefix("# ")
        is_key = line.startswith("# ") and " = " in bare and bare.split(" = ")[0].isidentifier()
        # A socket stands instead of the port and addresses beside it; the relay's header is behind # too.
        if bare.startswith(("socket =", "port = 993")):
            continue
        lines.append(bare if is_key or bare in ABSENT else line)
    text = "\n".join(lines)
    told = parse(text.encode(), tmp_path / "a.toml")
    # Examples that need another key: a user of the relay needs a password file, and by default there is none.
    alone = {"[submission.relay] user", "[domain 1.mta_sts] mode", "[domain 1] client_ca", "[domain 1] client_crl"}
    alone |= {"[acme] eab_key_id", "[acme.dns] key_name"}
    assert {problem.place for problem in told.problems} <= {"[server] user", "[domain 1.mta_sts]", *alone}
    assert told.config is not None
    plain = read(PROJECT / "etc" / "mailserver.toml").config
    assert plain is not None
    # Absent keys of [tls] are the preset's, and the examples are other values.
    assert told.config.tls.preset == plain.tls.preset
    for name in ("pop3", "lmtp", "http", "limits", "mail", "auth"):
        assert getattr(told.config, name) == getattr(plain, name)
    # The rule of the example stands behind a header of its own.
    assert len(told.config.imap.hide) == 1
    assert attrs.evolve(told.config.imap, hide=()) == plain.imap


def test_every_key_is_described() -> None:
    reference, example = describe.reference(), describe.example_file()
    for _name, table in describe._tables():
        for key, attribute in keys_of(table).items():
            if key not in ("relay", "site", "mta_sts", "quota", "dns", "hide"):
                assert f"| `{key}` |" in reference
                assert f"{key} = " in example
                assert attribute.metadata["doc"][0].isupper() or attribute.metadata["doc"].startswith("lmtp")


class TestShow:
    @pytest.fixture
    def config(self, tmp_path: Path) -> model.Config:
        text = SOUND + b"[submission.relay]\nhost = 'smtp.example.net'\nuser = 'u'\npassword_file = 'pw'\n"
        (tmp_path / "a.toml").write_bytes(text)
        (tmp_path / "pw").write_text("hunter2")
        config, problems = load(tmp_path / "a.toml")
        assert problems == []
        assert config is not None
        return config

    def test_no_secrets(self, config: model.Config) -> None:
        shown = show(config)
        assert "hunter2" not in shown
        assert tomllib.loads(shown)["auth"]["backends"] == ["file:/etc/mailserver/users", "strcred:(hidden)"]

    def test_settings_of_back_ends_without_their_secrets(self, config: model.Config) -> None:
        uses = (
            model.BackendUse("sql:hunter2", ("example.org",), cache=60.0),
            model.BackendUse("file:/users", ("example.net",)),
        )
        shown = show(attrs.evolve(config, auth=attrs.evolve(config.auth, backends=uses)))
        assert tomllib.loads(shown)["auth"]["backends"] == [
            {"use": "sql:(hidden)", "domains": ["example.org"], "time": 5.0, "calls": 16, "cache": 60.0},
            {"use": "file:/users", "domains": ["example.net"]},
        ]

    def test_no_arguments_of_the_command_for_a_password(self, config: model.Config) -> None:
        domain = attrs.evolve(config.domains[0], key_password_command=("/usr/bin/open", "--token", "hunter2"))
        shown = show(attrs.evolve(config, domains=(domain,)))
        assert "hunter2" not in shown
        assert tomllib.loads(shown)["domain"][0]["key_password_command"] == ["/usr/bin/open", "(hidden)", "(hidden)"]

    def test_everything_is_there(self, config: model.Config) -> None:
        document = tomllib.loads(show(config))
        for name, attribute in keys_of(model.Config).items():
            value = getattr(config, attribute.name)
            if value is None:
                assert name not in document
                continue
            tables = zip(document[name], value, strict=True) if isinstance(value, tuple) else [(document[name], value)]
            for table, values in tables:
                for key, of in keys_of(type(values)).items():
                    assert (key in table) == (getattr(values, of.name) is not None) or key in ("port", "relay", "site")
        assert document["listener"][0]["port"] == 143
        assert document["listener"][1]["addresses"] == ["127.0.0.1", "::1"]
        assert document["submission"]["relay"]["host"] == "smtp.example.net"

    def test_it_can_be_loaded_again(self, config: model.Config, tmp_path: Path) -> None:
        again = parse(show(config).encode(), config.source)
        assert again.problems == ()
        assert again.config is not None
        # Ports and addresses are said in words, back ends are hidden; all else is the same.
        for name in ("server", "mail", "tls", "imap", "pop3", "submission", "lmtp", "limits", "domains"):
            assert getattr(again.config, name) == getattr(config, name)
        effective = [(one.tcp_port, one.bind_addresses) for one in config.listeners]
        assert [(one.tcp_port, one.bind_addresses) for one in again.config.listeners] == effective

    def test_a_new_table_cannot_be_forgotten(self) -> None:
        assert set(describe._TABLES) == {name for name, _table in describe._tables()}
        assert all(attrs.has(table) for _name, table in describe._tables())
