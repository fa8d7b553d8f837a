"""Every transcript on every store; on that in memory its input whole, byte by byte and in random cuts (docs/transcripts.md).

The cuts concern the session, which is the same over each store. On Maildir they are made where messages are transferred in
pieces, and in `make soak` everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailserver.imap.commands import TABLE
from mailserver.message.render import summarise
from mailserver.session.quotas import UserQuotas
from mailserver.store.interfaces import Store
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.memory import MemoryStore
from mailserver.store.receiving import NewMessage
from mailserver.types import Quota
from tests import sweeps
from tests.fakes import info
from tests.imap.sessions import connect, services
from tests.transcript import FOLDER, QUOTA_SETTINGS, Header, load, message, names
from tests.transcript_cuts import CUTS, Cut, FakeConnection, whole
from tests.transcript_run import run

FILES = names("imap")
USER = "anna@example.test"
SPECIAL_USE = {"\\Drafts": "Drafts", "\\Sent": "Sent", "\\Junk": "Junk", "\\Trash": "Trash"}


def fill(store: Store, count: int) -> None:
    account = store.account(USER)
    for number in range(1, count + 1):
        staged = account.stage()
        staged.write(message(number))
        account.append("INBOX", [NewMessage(staged)])
    account.close()


def memory(_path: Path) -> Store:
    return MemoryStore(summarise, special_use=SPECIAL_USE)


def maildir(path: Path) -> Store:
    return MaildirStore(path, summarise, special_use={name[1:]: folder for name, folder in SPECIAL_USE.items()})


STORES: dict[str, Callable[[Path], Store]] = {"memory": memory, "maildir": maildir}


def open_all(header: Header, store: Store, cut: Cut) -> list[FakeConnection]:
    """The connections in their state. Asserts that the server has the capabilities that the header names."""
    settings = dict(header.settings)
    imap: dict[str, Any] = {key: settings.pop(key) for key in ("literal",) if key in settings}
    imap |= {key: int(settings.pop(key)) for key in ("message_limit", "save_limit") if key in settings}
    mail: dict[str, Any] = {key: settings.pop(key) for key in ("separator", "prefix") if key in settings}
    if "max_message_size" in settings:
        mail["max_message_size"] = int(settings.pop("max_message_size"))
    limits = [settings.pop(key, None) for key in QUOTA_SETTINGS]
    quotas = UserQuotas(Quota(*(int(limit) if limit else None for limit in limits)))
    listener, cleartext = settings.pop("listener", "imaps"), settings.pop("cleartext", "no") == "yes"
    only_whole = settings.pop("pieces", "") == "whole"
    assert not settings, f"unknown settings {settings}"
    fill(store, header.messages)
    service = services(store=store, mail=mail, imap=imap, quotas=quotas)
    found = []
    for _number in range(header.connections):
        client = connect(service, info(listener, cleartext=cleartext))
        assert client.take().startswith(b"* OK ")
        connection = FakeConnection(client, whole)
        before = set(client.session.capabilities().split())
        if header.state != "nonauth":
            assert b"OK" in client.ask(f"x LOGIN {USER} secret\r\n".encode())
        if header.state == "selected":
            assert b"x OK" in client.ask(b"x SELECT INBOX\r\n")
        offered = before | set(client.session.capabilities().split())
        offered |= {token.split("=")[0] for token in offered}
        connection.cut = whole if only_whole else cut
        found.append(connection)
        if header.state == "nonauth":
            offered |= {each.token for spec in TABLE.values() for each in spec.capabilities}
        assert offered >= set(header.capabilities), "a capability is missing"
    return found


def has_literals(name: str) -> bool:
    """Whether octets of the input may go to the store while others are still to come."""
    return re.search(r"\{\{\{|\{[0-9]+\+?\}", (FOLDER / "imap" / name).read_text(encoding="utf-8")) is not None


CASES = [
    (cut, name, store)
    for store in STORES
    for name in FILES
    for cut in CUTS
    if store == "memory" or cut == "whole" or sweeps.WHOLE or has_literals(name)
]


@pytest.mark.parametrize(("cut", "name", "store"), CASES)
def test_transcript(name: str, store: str, cut: str, tmp_path: Path) -> None:
    transcript = load("imap", name)
    connections = open_all(transcript.header, STORES[store](tmp_path), CUTS[cut](name))
    run(transcript, connections)
    for connection in connections:
        connection.hang_up()
        assert connection.client.done


def test_every_capability_has_a_transcript() -> None:
    named = {token for name in FILES for token in load("imap", name).header.capabilities}
    rows = {each.token for spec in TABLE.values() for each in spec.capabilities} - {"LITERAL"}
    session_wide = {"LITERAL+", "LITERAL-"}
    assert rows | session_wide <= named
    assert named <= rows | session_wide, "a header names what no server of ours offers"


def test_every_command_has_a_transcript() -> None:
    text = "\n".join((FOLDER / "imap" / name).read_text(encoding="utf-8") for name in FILES).upper()
    missing = [form for form in TABLE if f" {form} " not in text.replace("\n", " \n").replace("\\X0D", " ")]
    assert not missing


def test_every_row_names_an_rfc() -> None:
    for form, spec in TABLE.items():
        assert spec.reference.startswith("RFC "), form
        assert "RFC" in (spec.run.__doc__ or ""), form
