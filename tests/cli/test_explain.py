"""`mailserver explain` and `mailserver last`, on records of a directory's users and without a server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from attrs import evolve

from mailserver.explain.log import DIRECTORY, REFUSED, LoginLog
from mailserver.explain.record import Record
from mailserver.explain.ring import Ring
from mailserver.ledger.database import Ledger
from tests.cli.test_aliases import ANNA, Site
from tests.ledger.entries import ANNA as ENTRY

REF = "7KQF-2M9X"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def keep(site: Site, *records: Record) -> None:
    log = LoginLog(site.file.parent / "run" / DIRECTORY, "worker-1", [].append)
    for record in records:
        (log.refused if record.refused else log.logged_in)(record)
    log.close()


def refusal(rule: str, **changes: object) -> Record:
    whole = {"at": time.time(), "ref": REF, "rule": rule, "reason": "because", **changes}
    return Record(**whole)  # type: ignore[arg-type]


def test_a_wrong_password_names_its_last_change_and_expired_app_passwords(site: Site) -> None:
    site.ok("user", "app-password", "add", ANNA, "--label", "phone", "--expires", "1d")
    site.ok("user", "app-password", "add", ANNA, "--label", "laptop")
    keep(site, refusal("wrong password", user=ANNA))
    now = site.ok("explain", REF).splitlines()[-1]
    assert "last changed on 2026-09-21 14:13 UTC" in now
    assert "phone" not in now
    keep(site, Record(time.time() + 2 * 86400, ref="0000-0001", rule="wrong password", reason="because", user=ANNA))
    later = site.ok("explain", "0000-0001").splitlines()[-1]
    assert "had expired: phone. " in later
    assert "laptop" not in later


def test_a_wrong_password_names_app_passwords_that_were_revoked_before(site: Site) -> None:
    for label in ("phone", "tablet"):
        site.ok("user", "app-password", "add", ANNA, "--label", label)
    site.ok("user", "app-password", "revoke", ANNA, "phone")
    day = 86400
    for number, days in enumerate((-1, 1, 40)):
        keep(site, refusal("wrong password", user=ANNA, ref=f"0000-000{number}", at=time.time() + days * day))
    before, after, long_after = (site.ok("explain", f"0000-000{number}").splitlines()[-1] for number in range(3))
    assert "had been revoked: phone. " in after
    assert "tablet" not in after
    assert "revoked" not in before + long_after


def test_an_unknown_user_has_near_names(site: Site) -> None:
    keep(site, refusal("unknown user", typed=ANNA.replace("anna", "ana")))
    assert ANNA in site.ok("explain", "7kqf2m9x").splitlines()[-1]


def test_accounts_that_cannot_be_read_cost_the_advice_alone(site: Site) -> None:
    keep(site, refusal("wrong password", user=ANNA))
    site.path.write_bytes(b"no database" * 1000)
    said = site.ok("explain", REF)
    assert "the accounts cannot be read" in said
    assert "What to do: compare the password" in said


def test_the_program_of_a_login_is_the_ledgers(site: Site) -> None:
    keep(
        site,
        Record(time.time(), user=ANNA, protocol="imap", method="PLAIN", peer="192.0.2.1"),
        refusal("network", user=ANNA),
    )
    assert json.loads(site.ok("last", ANNA, "--json"))[0]["program"] is None
    state = site.file.parent / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    entry = evolve(ENTRY, account=ANNA, program="Thunderbird 140")
    Ledger(state).record([entry], int(time.time()), keep_days=9, per_account=9, most=9)
    login, refused = json.loads(site.ok("last", "ANNA@example.org", "--json"))
    assert (login["result"], login["program"]) == ("logged in", "Thunderbird 140")
    assert (refused["result"], refused["ref"]) == ("refused", REF)


def test_nothing_is_there_yet_or_may_not_be_read(site: Site) -> None:
    assert site.ok("explain").splitlines() == ["TIME  RESULT  REF  USER  PROTOCOL  METHOD  FROM"]
    assert f"no refusal {REF} is known" in site.refused("explain", REF)
    if os.geteuid() != 0:
        (site.file.parent / "run" / DIRECTORY).mkdir(mode=0o000)
        assert "only root" in site.refused("explain")


def test_records_are_shown_without_their_control_characters(site: Site) -> None:
    keep(site, refusal("unknown user", typed="a\x1b[31m\n@example.test", session="s\x07"))
    assert "\x1b" not in site.ok("explain", REF) + site.ok("explain")
    assert "\x07" not in site.ok("explain", REF)


def test_a_damaged_record_is_left_out_of_both_lists(site: Site) -> None:
    keep(site, refusal("wrong password", user=ANNA))
    ring = Ring(site.file.parent / "run" / DIRECTORY / f"worker-1{REFUSED}")
    for octets in (b'{"at":1' + b"0" * 400 + b"}", b'{"at":1900000000,"ref":"x","user":"\\ud800"}', b'{"at":NaN}'):
        ring.write(octets)
    ring.close()
    for words in (("explain",), ("last", ANNA)):
        assert [row["ref"] for row in json.loads(site.ok(*words, "--json"))] == [REF]
        assert REF in site.ok(*words)


def test_a_delegate_and_its_user_are_named_in_the_list_of_either(site: Site) -> None:
    keep(site, Record(time.time(), user=ANNA, delegate="admin@example.test"))
    keep(site, refusal("authorization", user="ben@example.test", delegate="admin@example.test"))
    assert f"{ANNA} by admin@example.test" in site.ok("last", ANNA)
    both = site.ok("last", "admin@example.test")
    assert f"{ANNA} by admin@example.test" in both
    assert "ben@example.test by admin@example.test" in both
    said = site.ok("explain", REF)
    assert "the account admin@example.test, which asked to log in as ben@example.test" in said
    assert "mailserver delegate" in said
