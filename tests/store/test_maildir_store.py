"""From a user's name to a Maildir: paths, new accounts, adopted ones."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from mailserver.errors import NoSpace, NoSuchUser, StoreUnavailable
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import directories, reserved_space, safeio
from mailserver.store.maildir.format.names import LevelEncoding
from mailserver.store.maildir.home import folders, special_use
from mailserver.types import DirectoryId, UIDValidity
from tests.store.maildirs import append

USER = "anna@example.test"


@pytest.fixture
def store(tmp_path):
    return MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test")


def uses(account):
    return {info.name: set(info.special_use) for info in account.mailboxes() if info.special_use}


def test_a_new_account_has_inbox_and_its_special_folders(store, tmp_path):
    account = store.account(USER)
    assert account.root == str(tmp_path / "mail" / "example.test" / "anna" / "Maildir")
    assert [info.name for info in account.mailboxes()] == ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    assert uses(account) == {
        "Archive": {"\\Archive"},
        "Drafts": {"\\Drafts"},
        "Junk": {"\\Junk"},
        "Sent": {"\\Sent"},
        "Trash": {"\\Trash"},
    }
    assert all(info.selectable for info in account.mailboxes())
    assert account.subscriptions() == {"Archive", "Drafts", "Junk", "Sent", "Trash"}
    assert os.listdir(tmp_path / "mail" / "example.test" / "anna") == ["Maildir"]


def test_an_account_that_is_there_is_left_as_it_is(store, tmp_path):
    first = store.account(USER)
    first.delete("Junk")
    append(first)
    again = MaildirStore(tmp_path / "mail", summarise).account(USER)
    assert "Junk" not in [info.name for info in again.mailboxes()]
    assert again.status("INBOX").messages == 1


def test_names_differ_in_case_only_by_accident(store):
    assert store.account("Anna@Example.TEST").root == store.account(USER).root


def test_an_adopted_maildir_gets_no_folders_and_its_names_tell_their_use(store, tmp_path):
    root = tmp_path / "mail" / "example.test" / "anna" / "Maildir"
    for name in ("", ".Sent Messages", ".Deleted Items", ".Spam", ".Other", ".INBOX.Drafts"):
        for part in ("cur", "new", "tmp"):
            os.makedirs(root / name / part)
    account = store.account(USER)
    assert [info.name for info in account.mailboxes()] == [
        "INBOX",
        "Deleted Items",
        "INBOX/Drafts",
        "Other",
        "Sent Messages",
        "Spam",
    ]
    assert uses(account) == {
        "Deleted Items": {"\\Trash"},
        "INBOX/Drafts": {"\\Drafts"},
        "Sent Messages": {"\\Sent"},
        "Spam": {"\\Junk"},
    }


def test_a_given_attribute_counts_before_a_name_and_follows_a_rename(store):
    account = store.account(USER)
    account.delete("Sent")
    account.create("Out", frozenset({"\\Sent"}))
    account.create("Sent Items")
    account.rename("Out", "Gone/Out")
    assert uses(account)["Gone/Out"] == {"\\Sent"}
    assert "Sent Items" not in uses(account)
    account.delete("Gone/Out")
    assert uses(account)["Sent Items"] == {"\\Sent"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zz": ["\\\\Sent"]}', '{"00": 7}'])
def test_a_spoilt_special_use_file_is_passed_over(store, text):
    account = store.account(USER)
    with open(os.path.join(account.root, "mailserver-special-use"), "w") as file:
        file.write(text)
    assert uses(account)["Sent"] == {"\\Sent"}


@pytest.mark.parametrize(
    "user",
    [
        "../x@example.test",
        "a/b@example.test",
        "@example.test",
        "..@example.test",
        "a@..",
        "a@",
        "a@b/c",
        "a\0b@example.test",
        "a\nb@example.test",
        "anna",
        "x" * 300 + "@example.test",
        "",
    ],
)
def test_a_name_that_would_leave_its_place_has_no_account(store, tmp_path, user):
    with pytest.raises(NoSuchUser):
        store.account(user)
    assert not (tmp_path / "mail").exists() or os.listdir(tmp_path / "mail") in ([], [reserved_space.FILE_NAME])


def test_a_location_may_use_user_and_home(tmp_path):
    store = MaildirStore(tmp_path, summarise, location="{home}/mail", special_use={})
    assert store.account("anna", str(tmp_path / "h")).root == str(tmp_path / "h" / "mail")
    with pytest.raises(NoSuchUser):
        store.account("anna")
    store = MaildirStore(tmp_path, summarise, location="{root}/{user}", special_use={})
    assert store.account("anna").root == str(tmp_path / "anna")


def test_an_escape_character_that_comes_later_changes_names_alone(tmp_path):
    """UIDs, flags and what is subscribed stay; the index knows the mailbox by its GUID."""
    before = MaildirStore(tmp_path, summarise, special_use={}).account(USER)
    before.create("Projekt v1%2e2")
    append(before, "Projekt v1%2e2")
    before.set_subscribed("Projekt v1%2e2", subscribed=True)
    before.set_subscribed("gone%2e", subscribed=True)
    known = before.status("Projekt v1%2e2"), before.mailbox("Projekt v1%2e2").id
    before.close()
    account = MaildirStore(tmp_path, summarise, special_use={}, encoding=LevelEncoding(escape="%")).account(USER)
    assert [info.name for info in account.mailboxes()] == ["INBOX", "Projekt v1.2"]
    assert account.subscriptions() == {"Projekt v1.2", "gone."}
    assert (account.status("Projekt v1.2"), account.mailbox("Projekt v1.2").id) == known
    account.create("a.b/c.d")
    account.rename("a.b", "e.f")
    account.set_subscribed("e.f/c.d", subscribed=True)
    assert {".e%2ef", ".e%2ef.c%2ed"} <= set(os.listdir(account.root))
    assert b"e%2ef\tc%2ed\n" in (Path(account.root) / "subscriptions").read_bytes()
    account.delete("e.f/c.d")
    assert ".e%2ef.c%2ed" not in os.listdir(account.root)


def test_utf8_names_on_disk(tmp_path):
    store = MaildirStore(tmp_path, summarise, special_use={}, encoding=LevelEncoding(utf8=True))
    account = store.account(USER)
    account.create("Entwürfe")
    account.set_subscribed("Entwürfe", subscribed=True)
    assert os.path.isdir(os.path.join(account.root, ".Entwürfe"))
    assert account.subscriptions() == {"Entwürfe"}


def test_half_an_account_is_never_seen(store, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(name):
        if name == "account.before-rename":
            raise Killed

    monkeypatch.setattr(safeio, "hook", die)
    with pytest.raises(Killed):
        store.account(USER)
    assert not (tmp_path / "mail" / "example.test" / "anna" / "Maildir").exists()
    monkeypatch.setattr(safeio, "hook", None)
    assert len(store.account(USER).mailboxes()) == 6


@pytest.mark.parametrize("error", [StoreUnavailable, NotADirectoryError])
def test_a_mailbox_is_deleted_though_its_files_cannot_be_removed_yet(store, tmp_path, monkeypatch, caplog, error):
    def fail(_path):
        raise error

    account = store.account(USER)
    append(account, "Junk")
    with monkeypatch.context() as patch:
        patch.setattr(directories, "remove_tree", fail)
        account.delete("Junk")
    assert "Junk" not in [info.name for info in account.mailboxes()]
    [left] = [name for name in os.listdir(account.root) if name.startswith("mailserver-deleted.")]
    assert left in caplog.text
    MaildirStore(tmp_path / "mail", summarise).account(USER)
    assert left not in os.listdir(account.root)


def test_the_reserved_space_lies_at_the_root_of_all_mail(store, tmp_path):
    store.account(USER)
    store.account("bert@example.test")
    assert (tmp_path / "mail" / reserved_space.FILE_NAME).stat().st_size == reserved_space.SIZE


def test_special_use_is_found_where_another_program_moved_it_and_the_index_is_lost(store, tmp_path):
    account = store.account(USER)
    account.close()
    os.rename(os.path.join(account.root, ".Trash"), os.path.join(account.root, ".Bin"))
    for name in os.listdir(account.root):
        if name.startswith("mailserver-index"):
            os.unlink(os.path.join(account.root, name))
    assert uses(MaildirStore(tmp_path / "mail", summarise).account(USER))["Bin"] == {"\\Trash"}


def test_special_use_goes_with_a_mailbox_that_another_program_moved_not_with_its_name(store):
    account = store.account(USER)
    os.rename(os.path.join(account.root, ".Trash"), os.path.join(account.root, ".Bin"))
    folders.Layout(account.root).create("Trash", UIDValidity(7))
    assert uses(account)["Bin"] == {"\\Trash"}
    assert "Trash" not in uses(account)


def test_a_deleted_mailbox_leaves_its_special_use_to_the_usual_name(store):
    account = store.account(USER)
    account.delete("Trash")
    account.create("Deleted Items")
    assert uses(account)["Deleted Items"] == {"\\Trash"}
    assert len(special_use.read(account.root)) == 4


def test_a_special_use_that_could_not_be_forgotten_is_with_the_next_one(store, monkeypatch):
    account = store.account(USER)
    gone, kept = (account.create(name, frozenset({f"\\{name}"})) for name in ("Gone", "Kept"))

    def full(*_arguments):
        raise NoSpace

    with monkeypatch.context() as patched:
        patched.setattr(special_use, "write", full)
        account.delete("Gone")
    assert gone in special_use.read(account.root)
    new = account.create("New", frozenset({"\\Important"}))
    assert gone not in special_use.read(account.root)
    assert {kept, new} <= special_use.read(account.root).keys()


def test_listing_reads_no_mailbox(store, monkeypatch):
    """Thousands of folders that were put there by another program: none is opened, locked, indexed or given a GUID."""
    account = store.account(USER)
    for number in range(50):
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(account.root, f".old.{number}", part))
    opened: list[str] = []
    open_file = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: opened.append(str(path)) or open_file(path, *rest))
    assert len(account.mailboxes()) == 57
    assert len(opened) < 20
    assert not os.path.exists(os.path.join(account.root, ".old.7", "dovecot-uidlist"))


def test_no_account_is_made_below_a_mount_point_whose_file_system_is_gone(tmp_path):
    """It would be in nobody's sight once that is mounted again, and its mail with it."""
    root, aside = tmp_path / "mail", tmp_path / "aside"
    root.mkdir()
    store = MaildirStore(root, summarise)
    append(store.account(USER))
    root.rename(aside)
    for make in (lambda: None, root.mkdir):
        make()
        with pytest.raises(StoreUnavailable, match="mounted"):
            store.account("ben@example.test")
    assert os.listdir(root) == []
    # What a large message waits in comes before its recipients' accounts, and makes no mail root of the mount point.
    (root / "mailserver-spool").mkdir()
    for begun_later in (store, MaildirStore(root, summarise, root_seen=DirectoryId.of(aside))):
        with pytest.raises(StoreUnavailable, match="mounted"):
            begun_later.account("ben@example.test")
    (root / "mailserver-spool").rmdir()
    root.rmdir()
    aside.rename(root)
    assert store.account(USER).status("INBOX").messages == 1
    assert store.account("ben@example.test").mailboxes()


def test_a_mail_root_may_move_with_its_mail(tmp_path):
    """As a file system of the network does, which is another device each time that it is mounted."""
    root = tmp_path / "mail"
    root.mkdir()
    store = MaildirStore(root, summarise)
    store.account(USER)
    shutil.copytree(root, tmp_path / "copy")
    root.rename(tmp_path / "aside")
    (tmp_path / "copy").rename(root)
    assert store.account("ben@example.test").mailboxes()


def test_an_account_whose_directory_is_gone_is_not_listed(store):
    account = store.account(USER)
    shutil.rmtree(account.root)
    with pytest.raises(StoreUnavailable, match="not on the disk"):
        account.mailboxes()


def test_the_log_is_told_which_file_the_system_refused(store, monkeypatch):
    """The client is told that mail is not available; errors.StorageFailure."""
    account = store.account(USER)

    def refused(path, *_more, **_same):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(StoreUnavailable) as caught:
        account.create("new")
    assert "Read-only" not in caught.value.sentence
    assert caught.value.reason.startswith(
        f"{caught.value.sentence}: [Errno 30] Read-only file system: '{account.root}/"
    )
