"""`mailserver delegate` on a directory."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cli.test_aliases import ANNA, BEN, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def rows(site: Site) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(site.ok("delegate", "list", "--json"))
    return found


def test_delegates_are_added_listed_and_removed(site: Site) -> None:
    said = site.ok("delegate", "add", ANNA, BEN, "--expires", "30d", "--why", "his holiday")
    assert f"{ANNA} may log in as {BEN} until" in said
    assert f"by the authorization identity {BEN}" in said
    [row] = rows(site)
    expires = row.pop("expires")
    assert row == {"delegate": ANNA, "over": BEN, "expired": False, "why": "his holiday"}
    assert isinstance(expires, int)
    assert abs(expires - time.time() - 30 * 86400) < 600
    site.ok("delegate", "add", ANNA, BEN, "--expires", "never", "--why", "for ever")
    [row] = rows(site)
    assert (row["expires"], row["why"]) == (None, "for ever")
    table = site.ok("delegate", "list")
    assert "DELEGATE" in table
    assert table.splitlines()[-1].split() == [ANNA, BEN, "never", "for", "ever"]
    assert f"{ANNA} may no longer" in site.ok("delegate", "remove", ANNA, BEN)
    assert rows(site) == []


def test_a_domain_and_a_date(site: Site) -> None:
    said = site.ok("delegate", "add", ANNA, "example.org", "--expires", "2099-12-31", "--why", "postmaster")
    assert "as USER@example.org until 2100-01-01 00:00 UTC" in said


def test_the_separator_of_the_configuration_is_shown(site: Site) -> None:
    text = site.file.read_text().replace("[auth]\n", '[auth]\nmaster_separator = "*"\n', 1)
    site.file.write_text(text)
    said = site.ok("delegate", "add", ANNA, BEN, "--expires", "8h", "--why", "a question")
    assert f"by the name {BEN}*{ANNA}, or the authorization identity {BEN}" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nobody@example.org", BEN), "there is no user nobody@example.org in the directory"),
        ((ANNA, "nobody@example.org"), "there is no user nobody@example.org"),
        ((ANNA, "nobody@example.com"), "is neither a user nor a domain here"),
        ((ANNA, "a b"), "'a b':"),
        ((ANNA, ANNA), "logs in as itself without this"),
    ],
)
def test_what_is_no_delegate_is_refused(site: Site, words: tuple[str, str], sentence: str) -> None:
    said = site.refused("delegate", "add", *words, "--expires", "8h", "--why", "x")
    assert sentence in said
    assert rows(site) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--why", "x"), "Missing option '--expires'"),
        (("--expires", "8h"), "Missing option '--why'"),
        (("--expires", "8h", "--why", " "), "1 to 200 printable characters"),
        (("--expires", "8h", "--why", "a\nb"), "1 to 200 printable characters"),
        (("--expires", "tomorrow", "--why", "x"), "is not a time from now"),
        (("--expires", "2001-01-01", "--why", "x"), "2001-01-01 is over"),
        (("--expires", "9999-12-31", "--why", "x"), "is not a time from now"),
    ],
)
def test_options_are_checked(site: Site, options: tuple[str, ...], sentence: str) -> None:
    assert sentence in site.refused("delegate", "add", ANNA, BEN, *options, status=2)


def test_removing_what_is_not_there_names_what_is(site: Site) -> None:
    assert "it is no delegate" in site.refused("delegate", "remove", ANNA, BEN)
    site.ok("delegate", "add", ANNA, "example.org", "--expires", "8h", "--why", "x")
    assert "it logs in as example.org" in site.refused("delegate", "remove", ANNA, BEN)


def test_an_expired_one_is_listed_as_such(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ok("delegate", "add", ANNA, BEN, "--expires", "8h", "--why", "x")
    later = time.time() + 9 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert rows(site)[0]["expired"] is True
    assert "expired" in site.ok("delegate", "list")
