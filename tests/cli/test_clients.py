"""`mailserver clients` and `mailserver tls impact` on a ledger that is there."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner, Result

from mailserver.cli import main
from mailserver.ledger.database import DAY, Ledger
from tests.ledger.entries import ANNA
from tests.tls.site import Site


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = Site(tmp_path).add("example.test", ["mail.example.test"]).write()
    ledger = Ledger(tmp_path / "state")
    bounds = {"keep_days": 365, "per_account": 10, "most": 100}
    old = evolve(ANNA, account="old@example.test", version="TLSv1.2", program="Old 1", port=143, protocol="imap")
    ledger.record([old], int(time.time()) - 60 * DAY, **bounds)
    ledger.record([ANNA, evolve(old, account="bert@example.test")], int(time.time()), **bounds)
    return path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--config", str(config)])


def test_clients(config: Path) -> None:
    told = json.loads(run(config, "clients", "--json").output)
    assert [(each["account"], each["program"], each["port"]) for each in told] == [
        ("anna@example.test", "Thunderbird 128.0", 993),
        ("bert@example.test", "Old 1", 143),
        ("old@example.test", "Old 1", 143),
    ]
    table = run(config, "clients", "anna@example.test").output.splitlines()
    assert table[0].split()[:3] == ["USER", "PROGRAM", "PROTOCOL"]
    assert len(table) == 2
    assert "mail.example.test" in table[1]


def test_forget(config: Path) -> None:
    assert "1 entries" in run(config, "clients", "anna@example.test", "--forget").output
    assert {each["account"] for each in json.loads(run(config, "clients", "--json").output)} == {
        "bert@example.test",
        "old@example.test",
    }
    run(config, "clients", "--forget")
    assert json.loads(run(config, "clients", "--json").output) == []


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["--min-version", "1.3"], ["bert@example.test"]),
        (["--min-version", "1.3", "--days", "90"], ["bert@example.test", "old@example.test"]),
        (["--min-version", "1.2"], []),
        (["--close", "143"], ["bert@example.test"]),
        (["--drop-name", "mail.example.test"], ["anna@example.test", "bert@example.test"]),
        (["--drop-mechanism", "LOGIN"], []),
        (["--close", "143", "--drop-mechanism", "plain"], ["anna@example.test", "bert@example.test"]),
        (["--close", "143", "--close", "110"], ["bert@example.test"]),
        (["--drop-name", "mail.example.test", "--drop-name", "b.example"], ["anna@example.test", "bert@example.test"]),
        (["--drop-mechanism", "PLAIN", "--drop-mechanism", "user"], ["anna@example.test", "bert@example.test"]),
    ],
)
def test_impact(config: Path, arguments: list[str], out: list[str]) -> None:
    told = run(config, "tls", "impact", "--json", *arguments)
    assert [each["account"] for each in json.loads(told.stdout)] == out
    assert told.exit_code == bool(out)


def test_impact_as_a_table(config: Path) -> None:
    told = run(config, "tls", "impact", "--close", "143")
    assert "shut out  bert@example.test" in told.output
    assert told.stdout.endswith("1 of 2 users seen in 30 days have a client that would be shut out\n")


def test_of_nothing_nothing_is_said(tmp_path: Path) -> None:
    path = Site(tmp_path).add("example.test", ["mail.example.test"]).write()
    told = run(path, "tls", "impact", "--close", "143")
    assert (told.exit_code, told.stdout) == (0, "nothing is known: no client was seen in 30 days\n")
    assert told.stderr.startswith("no listener has port 143; there are "), "a port that was mistyped shuts nobody out"
    told = run(path, "tls", "impact", "--drop-name", "mail.example.tset", "--drop-mechanism", "PLIAN")
    assert "no domain has the host mail.example.tset; there are mail.example.test\n" in told.stderr
    assert "[auth] mechanisms does not have PLIAN; there are " in told.stderr
    assert run(path, "tls", "impact", "--drop-name", "MAIL.example.test", "--drop-mechanism", "plain").stderr == ""
    assert run(path, "tls", "impact", "--drop-mechanism", "user").stderr == "", (
        "a command of POP3, which the ledger has"
    )
    assert run(path, "tls", "impact").exit_code == 2
    assert run(path, "clients").exit_code == 0


def test_a_damaged_ledger_is_told(tmp_path: Path) -> None:
    path = Site(tmp_path).add("example.test", ["mail.example.test"]).write()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "clients.db").write_bytes(b"no database" * 1000)
    told = run(path, "clients")
    assert told.exit_code == 1
    assert "Traceback" not in told.output
