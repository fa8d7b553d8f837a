"""`mailserver user` where accounts are in a users file and in a directory, and where users have aliases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_aliases import ANNA, BEN, INFO, Site

CARLA = "carla@example.org"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def both(site: Site) -> Site:
    """A users file before the directory; one user is in both."""
    users = site.file.parent / "first"
    users.write_text(f"{CARLA}:{{PLAIN}}x\n{BEN}:{{PLAIN}}y\n")
    users.chmod(0o600)
    text = site.file.read_text()
    site.file.write_text(text.replace('"directory:', f'"file:{users}", "directory:'))
    return site


def listed(site: Site) -> dict[str, tuple[bool, str]]:
    done = json.loads(site.run("user", "list", "--json").stdout)
    return {row["user"]: (row["enabled"], Path(row["kept_in"]).name) for row in done}


def test_users_of_all_are_listed_and_changed(both: Site) -> None:
    assert listed(both) == {CARLA: (True, "first"), BEN: (True, "first"), ANNA: (True, "directory.db")}
    assert "is not used, as" in both.run("user", "list").stderr
    both.ok("user", "disable", ANNA)
    both.ok("user", "disable", CARLA)
    assert listed(both)[ANNA] == (False, "directory.db")
    assert listed(both)[CARLA] == (False, "first")
    assert "directory.db" in both.ok("user", "show", ANNA)
    both.ok("user", "limit", ANNA, "--messages", "5")
    assert "has a user" in both.refused("user", "add", ANNA, "--generate")
    assert "have no user 'q@example.org'" in both.refused("user", "disable", "q@example.org")
    both.ok("user", "delete", ANNA, "--yes", "--keep-mail")
    assert ANNA not in listed(both)


def test_aliases_are_in_the_directory_behind_a_users_file(both: Site) -> None:
    both.ok("alias", "add", INFO, ANNA)
    assert both.stored(INFO) is not None
    assert "is a users file, which keeps no aliases" in both.refused(
        "user", "add", "z@example.org", "--generate", "--alias", "y@example.org"
    )


def test_a_user_is_added_with_aliases(site: Site) -> None:
    said = site.ok("user", "add", CARLA, "--generate", "--alias", INFO, "--alias", "C@example.org")
    assert f"mail to c@example.org, {INFO} goes to {CARLA}" in said
    stored = site.stored(INFO)
    assert stored is not None
    assert [(each.name, each.may_send) for each in stored.targets] == [(CARLA, True)]
    said = site.refused("user", "add", "dora@example.org", "--generate", "--alias", INFO)
    assert f"{INFO} is an alias already" in said
    assert "password:" not in said


def test_deleting_a_user_names_what_leads_to_it_alone(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA)
    site.ok("group", "add", "all@example.org", ANNA, BEN)
    said = site.ok("user", "delete", ANNA, "--yes", "--keep-mail")
    assert f"{INFO} leads to {ANNA} alone" in said
    assert f"`mailserver alias remove {INFO}`" in said
    assert "all@example.org" not in said


def test_an_alias_keeps_a_renamed_user(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA)
    site.ok("user", "rename", ANNA, "zoe@example.org")
    stored = site.stored(INFO)
    assert stored is not None
    assert [each.name for each in stored.targets] == ["zoe@example.org"]
    assert f"{INFO} (alias)" in site.ok("user", "show", "zoe@example.org")
