"""Every transcript of submission and LMTP, its input whole, byte by byte and in random cuts (docs/transcripts.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from mailserver.session.quotas import UserQuotas
from mailserver.smtp.tables import LMTP, SUBMISSION
from mailserver.types import Quota
from tests.fakes import Client, info
from tests.smtp.world import PLAIN, FakeHop, World
from tests.transcript import FOLDER, QUOTA_SETTINGS, Header, load, names
from tests.transcript_cuts import CUTS, Cut, FakeConnection, whole
from tests.transcript_run import run

TABLES = {"submission": SUBMISSION, "lmtp": LMTP}
FILES = [(protocol, name) for protocol in TABLES for name in names(protocol)]


def connect(world: World, protocol: str, settings: dict[str, str]) -> Client:
    cleartext = settings.get("cleartext", "no") == "yes"
    if protocol == "submission":
        return world.connect(info(settings.get("listener", "submissions"), cleartext=cleartext))
    starttls = settings.get("starttls", "no")
    return world.connect_lmtp(starttls_offered=starttls != "no", tls_required=starttls == "required")


def open_all(protocol: str, header: Header, cut: Cut, directory: Path) -> list[FakeConnection]:
    """The connections in their state. Asserts that the server has the extensions that the header names."""
    settings = dict(header.settings)
    changes: dict[str, Any] = {}
    if "max_recipients" in settings:
        changes[protocol] = {"max_recipients": int(settings["max_recipients"])}
    world = World(directory, FakeHop() if settings.get("next_hop", "yes") == "yes" else None, **changes)
    if "max_message_size" in settings:
        services = getattr(world, protocol)
        mail = evolve(services.mail, max_message_size=int(settings["max_message_size"]))
        setattr(world, protocol, evolve(services, mail=mail))
    if not settings.keys().isdisjoint({*QUOTA_SETTINGS, "when_full"}):
        limits = [settings.get(key) for key in QUOTA_SETTINGS]
        quota = Quota(*(int(limit) if limit else None for limit in limits))
        when_full = "permanent" if settings.get("when_full") == "permanent" else "temporary"
        quotas = UserQuotas(quota, when_full=when_full)
        setattr(world, protocol, evolve(getattr(world, protocol), quotas=quotas))
    known = {*QUOTA_SETTINGS, "when_full"}
    known |= {"listener", "cleartext", "starttls", "max_recipients", "max_message_size", "next_hop", "pieces"}
    assert set(settings) <= known, f"unknown settings {settings}"
    found = []
    for _number in range(header.connections):
        client = connect(world, protocol, settings)
        assert client.take().startswith(b"220 ")
        if header.state != "nonauth":
            word = b"LHLO" if protocol == "lmtp" else b"EHLO"
            assert client.ask(word + b" client.example.net\r\n").startswith(b"250-")
        if header.state == "auth":
            assert client.ask(b"AUTH PLAIN " + PLAIN + b"\r\n").startswith(b"235 ")
        found.append(FakeConnection(client, whole if settings.get("pieces") == "whole" else cut))
    offered = {extension.keyword for extension in TABLES[protocol].extensions}
    assert offered >= set(header.capabilities) - {"SMTP", "LMTP"}
    return found


@pytest.mark.parametrize(("protocol", "name"), FILES)
@pytest.mark.parametrize("cut", CUTS)
def test_transcript(protocol: str, name: str, cut: str, tmp_path: Path) -> None:
    transcript = load(protocol, name)
    connections = open_all(protocol, transcript.header, CUTS[cut](name), tmp_path)
    run(transcript, connections)
    for connection in connections:
        connection.hang_up()
        assert connection.client.done
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", TABLES)
def test_every_extension_has_a_transcript(protocol: str) -> None:
    named = {token for name in names(protocol) for token in load(protocol, name).header.capabilities}
    base = "LMTP" if protocol == "lmtp" else "SMTP"
    assert named == {extension.keyword for extension in TABLES[protocol].extensions} | {base}


@pytest.mark.parametrize("protocol", TABLES)
def test_every_command_has_a_transcript(protocol: str) -> None:
    texts = [(FOLDER / protocol / name).read_text(encoding="utf-8") for name in names(protocol)]
    words = {word for text in texts for word in text.upper().split()}
    assert {name.decode("ascii") for name in TABLES[protocol].commands} <= words


def test_every_row_names_an_rfc() -> None:
    for table in TABLES.values():
        for spec in table.commands.values():
            assert spec.reference.startswith("RFC "), spec.name
            assert "RFC" in (spec.run.__doc__ or ""), spec.name
        for extension in table.extensions:
            assert extension.reference.startswith("RFC "), extension.keyword
