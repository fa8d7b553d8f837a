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
        (["--drop-name", "MAIL.example.test."], ["anna@example.test", "bert@example.test"]),
        (["--drop-mechanism", "LOGIN"], []),
        (["--close", "143", "--drop-mechanism", "plain"], ["anna@example.test", "bert@example.test"]),
        (["--close", "143", "--close", "993"], ["anna@example.test", "bert@example.test"]),
        (
            ["--drop-name", "mail.example.test", "--drop-name", "MAIL.example.test."],
            ["anna@example.test", "bert@example.test"],
        ),
        (["--drop-mechanism", "PLAIN", "--drop-mechanism", "user"], ["anna@example.test", "bert@example.test"]),
    ],
)
def test_impact(config: Path, arguments: list[str], out: list[str]) -> None:
    told = run(config, "tls", "impact", "--json", *arguments)
    assert [each["account"] for each in json.loads(told.stdout)] == out
    assert told.exit_code == bool(out)


def test_a_single_name_of_a_wildcard_that_stays_may_leave_dns(tmp_path: Path, config: Path) -> None:
    path = Site(tmp_path).add("example.test", ["*.example.test"]).write()
    assert run(path, "tls", "impact", "--drop-name", "mail.example.test").exit_code == 1
    path = Site(tmp_path).add("example.test", ["*.example.test", "mail.example.test"]).write()
    assert run(path, "tls", "impact", "--drop-name", "mail.example.test").exit_code == 0, "the wildcard covers it"


def test_impact_as_a_table(config: Path) -> None:
    told = run(config, "tls", "impact", "--close", "143")
    assert "shut out  bert@example.test" in told.output
    assert told.stdout.endswith("1 of 2 users seen in 30 days have a client that would be shut out\n")


def test_of_nothing_nothing_is_said(tmp_path: Path) -> None:
    path = Site(tmp_path).add("example.test", ["mail.example.test"]).write()
    for change in (["--min-version", "1.3"], ["--drop-name", "MAIL.example.test."], ["--drop-mechanism", "user"]):
        told = run(path, "tls", "impact", *change)
        assert (told.exit_code, told.stdout) == (0, "nothing is known: no client was seen in 30 days\n")
    told = run(path, "tls", "impact", "--min-version", "1.3", "--json")
    assert (told.exit_code, told.stdout, told.stderr) == (
        0,
        "[]\n",
        "nothing is known: no client was seen in 30 days\n",
    )
    assert run(path, "tls", "impact").exit_code == 2
    assert run(path, "clients").exit_code == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--close", "144"], "no listener has port 144; "),
        (
            ["--drop-name", "mail.example.tset"],
            "no domain has the host mail.example.tset; did you mean mail.example.test?",
        ),
        (
            ["--drop-name", "b\u00fccher.example"],
            "no domain has the host xn--bcher-kva.example; there are mail.example.test",
        ),
        (["--drop-mechanism", "plian"], "no client can log in by PLIAN; did you mean PLAIN?"),
    ],
)
def test_what_nobody_has_is_mistyped_and_no_answer(config: Path, change: list[str], says: str) -> None:
    told = run(config, "tls", "impact", "--close", "143", *change)
    assert (told.exit_code, told.stdout) == (2, "")
    assert says in " ".join(told.stderr.split())


def test_a_port_that_has_been_closed_can_still_be_asked_about(config: Path) -> None:
    """143 is no listener of this configuration, 587 neither, but a client of the ledger has used the first."""
    assert run(config, "tls", "impact", "--close", "143").exit_code == 1
    assert run(config, "tls", "impact", "--close", "587").exit_code == 2


def test_a_damaged_ledger_is_told(tmp_path: Path) -> None:
    path = Site(tmp_path).add("example.test", ["mail.example.test"]).write()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "clients.db").write_bytes(b"no database" * 1000)
    told = run(path, "clients")
    assert told.exit_code == 1
    assert "Traceback" not in told.output
