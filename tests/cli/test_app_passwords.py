"""`mailserver user app-password` and the limits of logins, on a directory."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from mailserver.auth.app_passwords import probe_of
from mailserver.directory import addresses, credentials, reading
from mailserver.directory.model import Account
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.sasl.scram_keys import ScramKeys, derive
from tests.cli.test_aliases import ANNA, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def account(site: Site) -> Account:
    database = SQLiteDatabase.open(site.path)
    try:
        found = reading.find_account(database, ANNA)
    finally:
        database.close()
    assert found is not None
    return found


def test_one_is_added_shown_once_listed_and_revoked(site: Site) -> None:
    said = site.ok("user", "app-password", "add", ANNA, "--label", "phone", "--protocol", "imap", "--expires", "90d")
    found = re.search(r"(?m)^password: (\S+)$", said)
    assert found is not None
    probe = probe_of(found[1].encode())
    assert probe is not None
    database = SQLiteDatabase.open(site.path)
    found_there = credentials.find_app_password(database, probe)
    keys = [set(each.scram) for each in credentials.app_passwords(database, ANNA)]
    database.close()
    assert found_there is not None
    stored = found_there[0]
    assert (stored.account, stored.label, stored.protocols) == (ANNA, "phone", frozenset({"imap"}))
    assert keys == [{"SHA-256"}]
    listed = site.ok("user", "app-password", "list", ANNA)
    assert found[1] not in listed
    assert probe not in listed
    [row] = json.loads(site.ok("user", "app-password", "list", ANNA, "--json"))
    assert row["label"] == "phone"
    assert row["protocols"] == ["imap"]
    assert abs(row["expires"] - time.time() - 90 * 86400) < 3600
    assert row["expired"] is False
    assert "revoked the app password phone" in site.ok("user", "app-password", "revoke", ANNA, "phone")
    assert json.loads(site.ok("user", "app-password", "list", ANNA, "--json")) == []


def test_keys_of_all_have_one_salt(site: Site) -> None:
    for label in ("phone", "laptop"):
        site.ok("user", "app-password", "add", ANNA, "--label", label)
    database = SQLiteDatabase.open(site.path)
    shared = credentials.shared_parameters(database, ANNA)["SHA-256"]
    found = credentials.app_passwords(database, ANNA)
    database.close()
    assert shared
    assert [each.scram["SHA-256"].parameters for each in found] == [shared, shared]


@pytest.mark.parametrize("scheme", ["argon2id", "scram-sha-256"])
def test_another_main_password_has_keys_under_their_salt(site: Site, scheme: str) -> None:
    site.ok("user", "app-password", "add", ANNA, "--label", "phone")
    site.ok("user", "password", ANNA, "--generate", "--scheme", scheme)
    site.ok("user", "app-password", "add", ANNA, "--label", "laptop")
    said = site.ok("user", "password", ANNA, "--generate", "--scheme", scheme)
    password = said.partition("password: ")[2].partition("\n")[0]
    database = SQLiteDatabase.open(site.path)
    apps = credentials.app_passwords(database, ANNA)
    database.close()
    main = account(site).password
    assert main.secret.startswith("{" + scheme.upper())
    keys = ScramKeys.parse(main.scram["SHA-256"].text(), "SHA-256")
    assert derive("SHA-256", password.encode(), keys.salt, keys.rounds) == keys
    assert [each.scram["SHA-256"].parameters for each in apps] == [main.scram["SHA-256"].parameters] * 2


def test_without_app_passwords_another_main_password_has_a_salt_of_its_own(site: Site) -> None:
    found = []
    for _ in range(2):
        site.ok("user", "password", ANNA, "--generate")
        found.append(account(site).password.scram["SHA-256"].parameters)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (("add", "nobody@example.org", "--label", "x"), "has no user 'nobody@example.org'", 1),
        (("add", ANNA), "--label", 2),
        (("add", ANNA, "--label", " "), "a label has 1 to 60 printable characters", 2),
        (("add", ANNA, "--label", "a\0b"), "a label has 1 to 60 printable characters", 2),
        (("add", ANNA, "--label", "x", "--protocol", "http"), "'http' is not one of", 2),
        (("add", ANNA, "--label", "x", "--expires", "2001-01-01"), "is over already", 2),
        (("add", ANNA, "--label", "x", "--expires", "soon"), "neither a date", 2),
        (("revoke", ANNA, "x"), "it has: none", 1),
    ],
)
def test_refusals(site: Site, words: tuple[str, ...], said: str, status: int) -> None:
    assert said in site.refused("user", "app-password", *words, status=status)


def test_a_label_is_used_once(site: Site) -> None:
    site.ok("user", "app-password", "add", ANNA, "--label", "phone")
    assert "choose another label" in site.refused("user", "app-password", "add", ANNA, "--label", "phone")


def test_a_users_file_has_none(site: Site) -> None:
    users = site.file.parent / "users"
    text = re.sub(r"(?m)^backends = .*$", f'backends = ["file:{users}"]', site.file.read_text())
    site.file.write_text(text)
    name = users.read_text().split(":")[0].split("\n")[-1]
    said = site.refused("user", "app-password", "add", name, "--label", "x")
    assert "app passwords are kept in a directory" in said


def test_logins_are_limited(site: Site) -> None:
    site.ok("user", "limit", ANNA, "--protocol", "imap", "--protocol", "submission")
    assert account(site).limits.protocols == ("imap", "submission")
    assert "its main password works for imap; others need" in site.ok(
        "user", "limit", ANNA, "--password-protocol", "imap"
    )
    assert account(site).password.protocols == {"imap"}
    shown = json.loads(site.ok("user", "show", ANNA, "--json"))
    assert (shown["protocols"], shown["password_protocols"]) == (["imap", "submission"], ["imap"])
    said = site.ok("user", "limit", ANNA, "--apps-only", "--protocol", "none")
    assert "it may log in by each protocol, or those of its domain\n" in said
    assert "its main password works for none of these: each needs an app password" in said
    assert "password protocols: none: it needs app passwords\n" in site.ok("user", "show", ANNA)
    assert account(site).password.protocols == frozenset()
    assert account(site).limits.protocols is None
    assert "its main password works for all of these" in site.ok("user", "limit", ANNA, "--password-protocol", "none")
    assert "may log in" not in site.ok("user", "limit", ANNA, "--messages", "7")
    assert account(site).password.protocols is None
    site.refused("user", "limit", ANNA, "--protocol", "http", status=2)
    site.refused("user", "limit", ANNA, "--apps-only", "--password-protocol", "imap", status=2)


def test_a_domain_limits_its_users(site: Site) -> None:
    said = site.ok("domain", "limit", "example.org", "--protocol", "imap", "--network", "192.0.2.0/24")
    assert "its users log in by imap from 192.0.2.0/24, unless they" in said
    site.ok("domain", "limit", "example.org", "--network", "none")
    database = SQLiteDatabase.open(site.path)
    stored = addresses.find_stored_domain(database, "example.org")
    database.close()
    assert stored is not None
    assert json.loads(stored.limits) == {"protocols": ["imap"]}
    site.refused("domain", "limit", "example.org", status=2)
