"""The ledger's file: what is kept, for how long, how much of it, and what becomes of damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import apsw
import pytest
from attrs import evolve

from mailserver.ledger.credential_use import CredentialUse
from mailserver.ledger.database import DAY, Ledger, LedgerUnavailable
from mailserver.ledger.entry import Entry, as_row, from_row
from tests.ledger.entries import ANNA

NOW = 1_900_000_000


def record(ledger: Ledger, *entries: Entry, now: int = NOW, **bounds: int) -> None:
    ledger.record(entries, now, **{"keep_days": 30, "per_account": 10, "most": 100} | bounds)


def test_first_and_last(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state")
    assert ledger.seen() == []
    record(ledger, ANNA)
    record(ledger, ANNA, now=NOW + 7200)
    record(ledger, ANNA, now=NOW + 3600)  # a clock that was set back
    (only,) = Ledger(tmp_path / "state").seen()
    assert (only.entry, only.first, only.last) == (ANNA, NOW, NOW + 7200)


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        record(Ledger(tmp_path / "state"), ANNA)
    finally:
        os.umask(old)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "clients.db").stat().st_mode & 0o777 == 0o600


def test_by_account(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    other = evolve(ANNA, account="bert@example.test")
    record(ledger, ANNA, other)
    assert [each.entry for each in ledger.seen("bert@example.test")] == [other]
    assert ledger.forget("anna@example.test") == 1
    assert [each.entry for each in ledger.seen()] == [other]
    assert ledger.forget() == 1
    assert ledger.seen() == []


def test_who_was_not_seen_for_long_is_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger, ANNA)
    record(ledger, evolve(ANNA, port=143), now=NOW + 30 * DAY)
    assert {each.entry.port for each in ledger.seen()} == {993, 143}
    record(ledger, evolve(ANNA, port=144), now=NOW + 31 * DAY)
    assert {each.entry.port for each in ledger.seen()} == {143, 144}


def test_bounds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(5):
        record(ledger, evolve(ANNA, program=f"{number}"), now=NOW + number, per_account=3)
    assert [each.entry.program for each in ledger.seen()] == ["4", "3", "2"]
    for number in range(4):
        record(ledger, evolve(ANNA, account=f"{number}"), now=NOW + 100 + number, most=5)
    assert {(each.entry.account, each.entry.program) for each in ledger.seen()} == {
        ("anna@example.test", "4"),
        *((f"{number}", "Thunderbird 128.0") for number in range(4)),
    }


@pytest.mark.parametrize("damage", [b"this is no database at all" * 200, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "clients.db").write_bytes(damage)
    ledger = Ledger(tmp_path)
    record(ledger, ANNA)
    assert [each.entry for each in ledger.seen()] == [ANNA]


def test_a_directory_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(LedgerUnavailable, match="state"):
        record(Ledger(tmp_path / "state"), ANNA)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "clients.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerUnavailable):
        record(Ledger(tmp_path), ANNA)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_rows() -> None:
    row = json.loads(json.dumps(as_row(ANNA)))
    assert from_row(row) == ANNA
    for nonsense in (
        None,
        "x",
        [],
        row[:-1],
        [*row, "x"],
        [7, *row[1:]],
        ["", *row[1:]],
        ["a\nb", *row[1:]],
        ["a" * 256, *row[1:]],
    ):
        assert from_row(nonsense) is None
    for port in (True, -1, 65536, "993", None):
        assert from_row([*row[:3], port, *row[4:]]) is None
    assert from_row([*row[:4], "perhaps", *row[5:]]) is None


USE = CredentialUse("c1", "anna@example.test", "192.0.2.0/24", "imap", NOW)


def record_uses(ledger: Ledger, *uses: CredentialUse, now: int = NOW, most: int = 100) -> None:
    ledger.record_uses(uses, now, keep_days=30, most=most)


def test_the_last_use_of_an_app_password_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.uses(["c1"]) == {}
    later = evolve(USE, network="198.51.100.0/24", protocol="pop3", last=NOW + 60)
    record_uses(ledger, later, now=NOW + 60)
    record_uses(ledger, USE, now=NOW + 60)  # of a worker that reports later
    assert ledger.uses(["c1", "c2"]) == {"c1": later}
    record_uses(ledger, evolve(USE, credential="c2", last=NOW + 9999))
    assert ledger.uses(["c2"])["c2"].last == NOW, "a worker's clock may be wrong"


def test_uses_are_bounded_by_age_and_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record_uses(ledger, *(evolve(USE, credential=f"c{number}", last=NOW + number) for number in range(5)), now=NOW + 5)
    record_uses(ledger, evolve(USE, credential="c9", last=NOW + 9), now=NOW + 9, most=3)
    names = [f"c{number}" for number in range(10)]
    assert sorted(ledger.uses(names)) == ["c3", "c4", "c9"]
    record_uses(ledger, now=NOW + 31 * DAY)
    assert ledger.uses(names) == {}


def test_uses_are_forgotten_with_the_account(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for name, credential in (("anna@example.test", "c1"), ("bert@example.test", "c2")):
        record(ledger, evolve(ANNA, account=name))
        record_uses(ledger, evolve(USE, account=name, credential=credential))
    assert ledger.forget("anna@example.test") == 1
    assert list(ledger.uses(["c1", "c2"])) == ["c2"]
    assert ledger.forget() == 1
    assert ledger.uses(["c1", "c2"]) == {}


def test_a_file_of_the_release_before_gets_the_table(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger, ANNA)
    database = apsw.Connection(str(ledger.path))
    database.execute("DROP TABLE used")
    database.close()
    assert ledger.uses(["c1"]) == {}
    record_uses(ledger, USE)
    assert list(ledger.uses(["c1"])) == ["c1"]
    assert [each.entry for each in ledger.seen()] == [ANNA]


def test_uses_survive_no_damage_but_are_kept_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record_uses(ledger, USE)
    ledger.path.write_bytes(b"no database " * 1000)
    for ending in ("-wal", "-shm"):
        ledger.path.with_name(ledger.path.name + ending).unlink(missing_ok=True)
    record_uses(ledger, USE)
    assert list(ledger.uses(["c1"])) == ["c1"]
