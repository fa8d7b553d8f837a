"""Files of the version before are taken over as they are, and what is written into them the version before can read.

`state.tar.gz` was made by `state.py` with the version before. The second half cannot run that version: it holds that the
tables, their versions and the forms of all other files are the ones that it wrote. A downgrade with both versions is tried
by hand, with `state.py`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import apsw
import pytest

from mailserver.ledger.database import Ledger
from mailserver.ledger.entry import Entry
from mailserver.store.index.database import Index
from mailserver.store.index.fulltext import FullText
from mailserver.store.maildir.disk.process_start import boot_id
from mailserver.tls.acme import acme_state
from mailserver.tls.state.history import History
from tests.server import ROOT
from tests.upgrade import inside, state

ARCHIVE = Path(__file__).parent / "state.tar.gz"
KEPT = (
    "mailserver-index.sqlite",
    "mailserver-text.sqlite",
    "certificates.sqlite",
    "acme.sqlite",
    "clients.db",
    "ca.sqlite",
)
"""Databases that are made anew where they cannot be used."""
ADDED = ("field_texts", "previews", "sort_keys", "sums", "unsized", "used")
"""Tables that the version before does not have. It leaves them alone, and their rows stay true: no UID is given twice, and
sums are counted anew after it (tests/store/test_maildir_sums.py), and a use of an app password is noted again."""
HOST = "mail.example.org"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The files of the version before, as if the machine had not been started anew since."""
    state.unpack(ARCHIVE, tmp_path / "state")
    for index in (tmp_path / "state").rglob("mailserver-index.sqlite"):
        # After another start of the machine the modseq of a mailbox rises at its first use: the last writes may be lost.
        database = apsw.Connection(str(index))
        database.execute("UPDATE mailboxes SET boot = ?", (boot_id(),))
        database.close()
    return tmp_path / "state"


def inodes(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): path.stat().st_ino for name in KEPT for path in directory.rglob(name)}


def assert_holds(found: Any, expected: Any, where: str = "") -> None:
    """All that is expected is there; a newer version may tell more."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{where}: {key} is missing"
            assert_holds(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_holds(one, other, f"{where}/{number}")
    else:
        assert found == expected, where


def test_an_upgrade_serves_all_without_a_rebuild_and_a_downgrade_finds_its_own_forms(before: Path) -> None:
    made = inodes(before)
    assert len(made) == len(KEPT) + 1  # two accounts, the text of one is indexed
    forms = forms_of(before)
    described = state.describe(ROOT, before)
    assert described["complaints"] == []
    assert_holds(described, json.loads((before / state.EXPECTED).read_text()))
    state.change(ROOT, before)
    assert inodes(before) == made, "a database was made anew"
    assert forms_of(before) <= forms


def forms_of(directory: Path) -> set[tuple[str, str]]:
    """(Name, form) of each file, and of each line of those that are text: what a version must know to read it."""
    found = set()
    for path in sorted(each for top in ("mail", "state", "users") for each in walk(directory / top)):
        relative = str(path.relative_to(directory))
        if path.parent.name in {"cur", "new"}:
            found |= form_of_name(path.name)
            continue
        name = re.sub(r"[^/]*(?=/(dovecot|maildir))", "MAILBOX", relative)
        name = re.sub(r"[0-9a-f]+", "9", name)
        if path.name in {"dovecot-keywords", "subscriptions"}:
            found |= {
                (name, re.sub(r"[^\t ]{2,}", "WORD", re.sub("[0-9]+", "9", line)))
                for line in path.read_text().splitlines()
            }
        elif path.name in {"dovecot-uidlist", "exposures.json", "users"}:
            found |= {(name, form_of_line(line)) for line in path.read_text().splitlines()}
        elif path.name == "mailserver-special-use":
            found |= {(name, repr((type(key), type(value)))) for key, value in json.loads(path.read_text()).items()}
        elif path.name == "known-networks":
            found.add((name, repr(path.read_bytes().partition(b"\n")[0])))
        elif path.suffix in {".sqlite", ".db"}:
            found |= {(path.name, repr(row)) for row in schema_of(str(path))}
        elif not path.name.endswith(("-wal", "-shm", "-journal")):
            found.add((name, str(path.stat().st_size) if path.name == "mailserver-lock" else ""))
    return found


def walk(top: Path) -> list[Path]:
    return [Path(parent, name) for parent, _names, names in os.walk(top) for name in names] if top.is_dir() else [top]


def form_of_name(name: str) -> set[tuple[str, str]]:
    """Of a message's file: its base, and the kinds of its flags."""
    base, mark, flags = name.partition(":2,")
    kinds = {"system" if flag in "DFPRST" else "keyword" if flag.islower() else flag for flag in flags}
    return {("base", form_of_line(base)), ("mark", mark), *(("flag", kind) for kind in kinds)}


def form_of_line(line: str) -> str:
    """Without the values: names of people and mailboxes, numbers, digests."""
    # The identifier in the name of a copy: versions before read the beginning of a name, and the sizes at its end.
    line = re.sub(r",E=[0-9a-f]{24}(?=,|$)", "", line)
    line = re.sub(r"(?<=[=$,:])[A-Za-z0-9+/]{16,}=*", "DIGEST", line)
    line = re.sub(r"R[0-9a-f]{8}\b", "R9", line)
    line = re.sub(r"\b(anna|bert)@example\.test\b", "USER", line)
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "9", line)


def schema_of(path: str) -> set[tuple[object, ...]]:
    """The tables of a database with its version, without those that are ADDED."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        entries = connection.execute("SELECT type, name, sql, tbl_name FROM sqlite_master WHERE sql IS NOT NULL")
        tables = [(kind, name, sql) for kind, name, sql, table in entries if table not in ADDED]
        versions = connection.pragma("application_id"), connection.pragma("user_version")
        return {*tables, versions}
    finally:
        connection.close()


def test_new_databases_have_the_tables_and_versions_of_those_before(before: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    Index.remake(str(new / "mailserver-index.sqlite")).close()
    FullText.open(str(new / "mailserver-text.sqlite"), create=True).close()
    History.open(new, 10, 0).close()
    acme_state.account_key(new, inside.AUTHORITY)
    entry = Entry(inside.USER, "", "imaps", 993, "implicit", "TLSv1.3", "", "", "", "LOGIN")
    Ledger(new).record([entry], 1_000_000, keep_days=1, per_account=1, most=1)
    for path in new.iterdir():
        if path.suffix in {".sqlite", ".db"}:
            [old, *_more] = before.rglob(path.name)
            assert schema_of(str(path)) == schema_of(str(old)), path.name
    assert {path.name for path in new.iterdir()} >= set(KEPT) - {"ca.sqlite"}


def test_the_state_of_acme_and_the_history_of_certificates_are_read(before: Path) -> None:
    directory = before / "state"
    order = acme_state.pending_order(directory, HOST)
    assert order is not None
    assert (order.address, order.key_pem.reveal(), order.request_pem) == (
        inside.AUTHORITY + "/1",
        b"a key",
        b"a request",
    )
    assert acme_state.is_changing(directory, inside.AUTHORITY)
    attempts = acme_state.all_attempts(directory)[HOST]
    assert (attempts.failures, attempts.tried, attempts.until) == (3, 1_000_000, 4_000_000_000)
    assert acme_state.all_windows(directory)["mail.example.test"].explanation == "https://why.example.net/"
    history = History.open(directory, 10, 0)
    assert history.problem == ""
    newest, second, *_rest = history.of_host(HOST)
    assert (newest.restores, history.warned_at(HOST, newest.fingerprint, 14)) == (second.id - 1, 1_000_000)
    assert history.is_revoked(second.fingerprint)
    assert [history.pair(each.digest).fingerprint for each in (newest, second)] == [
        newest.fingerprint,
        second.fingerprint,
    ]
    history.close()


def test_a_form_is_told_from_another() -> None:
    """What the comparison above stands on."""
    lines = [
        "3 V1796183076 N1 G515a6adf4b17f53125740f4fecbcea84",
        "4 V1796183076 N1",
        "1 :179.M5P5Q4R8764.host,S=4",
        "1 179.M5",
    ]
    assert len({form_of_line(line) for line in lines}) == len(lines)
    assert form_of_line("anna@example.test:{X}") == form_of_line("bert@example.test:{X}")
    pairs = itertools.pairwise(
        ["1.M2P3.host", "1.M2P3.host:2,", "1.M2P3.host:2,S", "1.M2P3.host:2,Sa", "1.M2P3.host:3,"]
    )
    assert all(form_of_name(one) != form_of_name(other) for one, other in pairs)
