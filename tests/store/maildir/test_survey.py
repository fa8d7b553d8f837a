"""What another server has left in a Maildir: found by names, without opening or changing anything."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mailserver.store.maildir.account.survey import survey
from mailserver.store.maildir.format.names import LevelEncoding


def make(root: Path, *folders: str) -> None:
    for name in ("", *folders):
        for part in ("cur", "new", "tmp"):
            (root / name / part).mkdir(parents=True)


def found(root: Path, encoding: LevelEncoding = LevelEncoding()) -> list[tuple[str, str, str]]:  # noqa: B008 - frozen
    top = root.parent.parent
    return [(each.kind, os.path.relpath(each.path, top), each.detail) for each in survey(str(root), None, encoding)]


def test_an_account_of_ours_has_nothing(tmp_path: Path) -> None:
    root = tmp_path / "anna" / "Maildir"
    make(root, ".Sent", ".Entw&APw-rfe.A&-B", ".50% off")
    (root / "dovecot-uidlist").write_text("")
    (root / "subscriptions").write_text("")
    (root / ".no-folder").mkdir()
    (root / "..DOVECOT-TRASHED").mkdir()
    assert found(root) == []


def test_each_kind(tmp_path: Path) -> None:
    root = tmp_path / "anna" / "Maildir"
    make(root, ".Shared", ".a&b")
    (root.parent / ".dovecot.sieve").symlink_to("nowhere")
    (root.parent / "sieve").mkdir()
    (root.parent / "dovecot-attributes").write_text("")
    (root / "dovecot-acl").write_text("")
    (root / "maildirsize").write_text("")
    (root / ".Shared" / "dovecot-acl").write_text("")
    assert found(root) == [
        ("sieve", "anna/.dovecot.sieve", ""),
        ("attributes", "anna/dovecot-attributes", ""),
        ("sieve", "anna/sieve", ""),
        ("acl", "anna/Maildir/dovecot-acl", ""),
        ("quota", "anna/Maildir/maildirsize", ""),
        ("acl", "anna/Maildir/.Shared/dovecot-acl", ""),
        ("unshown", "anna/Maildir/.a&b", ""),
    ]


def test_the_home_of_the_users_file_counts(tmp_path: Path) -> None:
    root, home = tmp_path / "mail" / "anna", tmp_path / "home" / "anna"
    make(root)
    home.mkdir(parents=True)
    (home / ".dovecot.sieve").write_text("")
    assert [each.kind for each in survey(str(root), str(home), LevelEncoding())] == ["sieve"]
    assert [each.kind for each in survey(str(root), str(tmp_path / "missing"), LevelEncoding())] == []
    assert [each.kind for each in survey(str(root), str(root), LevelEncoding())] == []


def test_mail_that_is_not_served(tmp_path: Path) -> None:
    root = tmp_path / "anna" / "Maildir"
    (root.parent / "mdbox" / "mailboxes" / "INBOX" / "dbox-Mails").mkdir(parents=True)
    (root.parent / "mbox" / ".imap").mkdir(parents=True)
    (root.parent / "other" / "mailboxes").mkdir(parents=True)
    assert found(root) == [("format", "anna/mbox", ""), ("format", "anna/mdbox", "")]
    make(root, "Sent", ".Trash", "mailserver-new.1")
    assert found(root)[2:] == [("layout", "anna/Maildir/Sent", "")]
    shutil.rmtree(root.parent / "mdbox")
    (root.parent / "mailboxes" / "INBOX" / "dbox-Mails").mkdir(parents=True)
    assert found(root)[0] == ("format", "anna", "")


@pytest.mark.parametrize(
    ("folders", "character"),
    [
        ([".Projekt v1%2e2"], "%"),
        ([".a^2fb", ".c"], "^"),
        ([r".\7ex", r".a\5cb"], "\\"),
        ([".a%2eb", ".c^2ed", ".e^2ef"], "^"),
        ([".a%2Eb"], ""),
        ([".v1_2e"], ""),
        # A character that begins something else as well is none that escapes.
        ([".a%2eb", ".50% off"], ""),
        ([".a%2eb", ".50%25 off"], "%"),
        ([], ""),
    ],
)
def test_a_tree_that_needs_an_escape_character(tmp_path: Path, folders: list[str], character: str) -> None:
    root = tmp_path / "anna" / "Maildir"
    make(root, *folders)
    details = [detail for kind, _path, detail in found(root) if kind == "escape"]
    assert details == ([character] if character else [])
    if character:
        assert found(root, LevelEncoding(escape=character, slashes=True)) == [] or len(folders) == 3
