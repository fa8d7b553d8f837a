"""What takes effect at the next start stays as it is in all that is begun meanwhile, and is told at each reload."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from mailserver.config.at_start import START_SETTINGS, keep_start_settings
from mailserver.config.model import Auth, Config, Limits, Mail, Server


def config() -> Config:
    server = Server(hostname="mail.example.test", user="mail", workers=2)
    return Config(server=server, mail=Mail(root=Path("/one")), auth=Auth(backends=()), domains=(), listeners=())


def test_the_table_names_settings_that_there_are() -> None:
    for table, keys in START_SETTINGS.items():
        names = {attribute.name for attribute in attrs.fields(type(getattr(config(), table)))}
        assert set(keys) <= names


def test_what_waits_stays_and_the_rest_is_taken_up() -> None:
    wanted = attrs.evolve(
        config(),
        server=Server(hostname="other.example.test", user="root", workers=2),
        mail=Mail(root=Path("/other"), max_message_size=65536),
        limits=Limits(connections=5),
    )
    taken, lines = keep_start_settings(config(), wanted)
    assert (taken.server.user, taken.server.hostname) == ("mail", "other.example.test")
    assert taken.mail == Mail(root=Path("/one"), max_message_size=65536)
    assert taken.limits.connections == 5
    assert lines == ["[server] user: takes effect at the next start", "[mail] root: takes effect at the next start"]
    assert keep_start_settings(taken, wanted)[1] == lines, "it is told as long as it waits"


@pytest.mark.parametrize("changed", [config(), attrs.evolve(config(), limits=Limits(connections=5))])
def test_nothing_is_told_where_nothing_waits(changed: Config) -> None:
    assert keep_start_settings(config(), changed) == (changed, [])
