"""Every POP3 transcript, its input whole, byte by byte and in random cuts (docs/transcripts.md)."""

from __future__ import annotations

import pytest

from mailserver.pop3.commands import TABLE
from tests.fakes import info
from tests.pop3.dialogs import World
from tests.transcript import FOLDER, Header, load, message, names
from tests.transcript_cuts import CUTS, Cut, FakeConnection, whole
from tests.transcript_run import run

FILES = names("pop3")
LOGIN = (b"USER anna@example.test\r\n", b"PASS secret\r\n")


def open_all(header: Header, cut: Cut) -> list[FakeConnection]:
    """The connections in their state. Asserts that the server has the capabilities that the header names."""
    settings = dict(header.settings)
    listener, cleartext = settings.pop("listener", "pop3s"), settings.pop("cleartext", "no") == "yes"
    only_whole = settings.pop("pieces", "") == "whole"
    assert not settings, f"unknown settings {settings}"
    world = World()
    world.deliver(*map(message, range(1, header.messages + 1)))
    found = []
    for _number in range(header.connections):
        connection = FakeConnection(world.connect(info(listener, cleartext=cleartext)), whole)
        client = connection.client
        assert client.take().startswith(b"+OK")
        if header.state == "auth":
            for command in LOGIN:
                assert client.ask(command).startswith(b"+OK")
        connection.cut = whole if only_whole else cut
        found.append(connection)
    assert {each.keyword for each in TABLE.capabilities} >= set(header.capabilities) - {"POP3"}
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", CUTS)
def test_transcript(name: str, cut: str) -> None:
    transcript = load("pop3", name)
    connections = open_all(transcript.header, CUTS[cut](name))
    run(transcript, connections)
    for connection in connections:
        connection.hang_up()
        assert connection.client.done


def test_every_capability_has_a_transcript() -> None:
    named = {token for name in FILES for token in load("pop3", name).header.capabilities}
    assert named == {each.keyword for each in TABLE.capabilities} | {"POP3"}


def test_every_command_has_a_transcript() -> None:
    words = {word for name in FILES for word in (FOLDER / "pop3" / name).read_text(encoding="utf-8").upper().split()}
    assert {name.decode("ascii") for name in TABLE.commands} <= words


def test_every_row_names_an_rfc() -> None:
    for spec in TABLE.commands.values():
        assert spec.reference.startswith("RFC "), spec.name
        assert "RFC" in (spec.run.__doc__ or ""), spec.name
