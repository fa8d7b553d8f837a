"""Messages that are read on the reactor's thread: the same octets as in the account's, or nothing."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailserver.message.render import summarise
from mailserver.store.flags import FlagChange
from mailserver.store.index.messages import Messages
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import page_cache as page_cache_module
from mailserver.store.maildir.disk.page_cache import LARGEST, file_system_type, page_cache
from mailserver.store.maildir.format.message_file import HEAD, read_cached, read_cached_header, to_crlf
from mailserver.store.maildir.home.file_names import GROUP, FileNames

USER = "anna@example.test"
TEXTS = [
    b"Subject: bare\n\none\ntwo\n",
    b"Subject: whole\r\n\r\none\r\ntwo\r\n",
    b"Subject: mixed\r\nX: y\n\r\none\ntwo",
    b"Subject: no body\n",
    b"\nno header\n",
    b"Subject: large\n\n" + b"0123456789abcde\n" * (LARGEST // 32),
]


@pytest.fixture
def mailbox(tmp_path):
    account = MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test").account(USER)
    for number, text in enumerate(TEXTS):
        with open(os.path.join(account.root, "cur", f"17000000{number:02d}.a.host:2,"), "wb") as file:
            file.write(text)
    found = account.mailbox("INBOX")
    found.refresh()
    return found


def texts_of(mailbox, size=None):
    return [mailbox.read_cached(uid, size, False) for uid in range(1, len(TEXTS) + 1)]


def test_nothing_is_read_before_the_names_are_known(mailbox):
    assert texts_of(mailbox) == [None] * len(TEXTS)
    assert mailbox.read_whole([2], 1000) == [(2, TEXTS[1])]
    assert texts_of(mailbox) == [to_crlf(text) for text in TEXTS]


def test_the_size_decides_whether_it_is_the_message(mailbox):
    mailbox.read_whole([1], 1000)
    for uid, text in enumerate(TEXTS, 1):
        sent = to_crlf(text)
        assert mailbox.read_cached(uid, len(sent), False) == sent
        assert mailbox.read_cached(uid, len(sent) + 1, False) is None
        # A name that claims the file's size does not make its LFs CRLFs.
        assert mailbox.read_cached(uid, len(text), False) == (sent if text == sent else None)


def test_a_header_is_read_with_its_empty_line(mailbox):
    mailbox.read_whole([1], 1000)
    found = [mailbox.read_cached(uid, None, True) for uid in range(1, len(TEXTS) + 1)]
    assert found == [
        b"Subject: bare\r\n\r\n", b"Subject: whole\r\n\r\n", b"Subject: mixed\r\nX: y\r\n\r\n", None, b"\r\n",
        b"Subject: large\r\n\r\n",
    ]  # fmt: skip


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"\r\r\n", b"\n\n"]), max_size=12).map(b"".join))
@example(b"a\n\r\n\n")
@example(b"\r\n\n")
@settings(deadline=None)
def test_a_header_ends_where_it_ends_in_the_whole_message(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("texts") / "message"
    path.write_bytes(data)
    cache = page_cache()
    assert cache is not None
    sent = to_crlf(data)
    end = re.match(rb"(?s)\r\n|.*?\r\n\r\n", sent)
    assert read_cached_header(cache, os.fsencode(path)) == (end[0] if end else None)
    assert read_cached(cache, os.fsencode(path), None) == sent


def test_a_long_header_is_left_to_a_thread(tmp_path):
    path = tmp_path / "message"
    path.write_bytes(b"X: " + b"y" * HEAD + b"\n\ntext\n")
    cache = page_cache()
    assert cache is not None
    assert read_cached_header(cache, os.fsencode(path)) is None


def test_an_account_that_is_a_copy_has_names_of_its_own(mailbox, tmp_path):
    """Its GUIDs are the same, and another program may have given the UIDs to other messages."""
    mailbox.read_whole([1], 1000)
    root = os.path.dirname(mailbox.watched_paths[0])
    copy = tmp_path / "mail" / "example.test" / "bert" / "Maildir"
    shutil.copytree(root, copy, ignore=lambda _directory, names: {name for name in names if "index" in name})
    uidlist = copy / "dovecot-uidlist"
    first, *rest = uidlist.read_bytes().splitlines(keepends=True)
    names = [line.partition(b" :")[2] for line in rest]
    uidlist.write_bytes(first + b"".join(b"%d :%b" % (uid, name) for uid, name in enumerate(reversed(names), 1)))
    account = MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test").account("bert@example.test")
    account._home.settings = mailbox._home.settings
    other = account.mailbox("INBOX")
    assert other.id == mailbox.id
    other.read_whole([1], 1 << 20)
    assert texts_of(mailbox) == [to_crlf(text) for text in TEXTS]
    assert texts_of(other) == [to_crlf(text) for text in reversed(TEXTS)]


@pytest.mark.parametrize("kind", [0x65735546, 0x6969])
def test_nothing_is_read_where_an_open_may_wait_for_others(mailbox, kind, monkeypatch):
    monkeypatch.setattr(page_cache_module, "file_system_type", lambda _path: kind)
    for _ in range(2):
        assert mailbox.read_whole([2], 1000) == [(2, TEXTS[1])]
        assert texts_of(mailbox) == [None] * len(TEXTS)


def test_the_type_of_a_file_system():
    assert file_system_type("/proc") == 0x9FA0
    assert file_system_type("/nowhere") == 0


def test_a_size_that_a_name_wrongly_claims_is_not_copied(tmp_path):
    account = MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test").account(USER)
    text = b"Subject: x\n\n" + b"text\n" * 20
    name = f"1700000000.M1P1.host,S={len(text) - 1},W={len(text)}:2,"
    with open(os.path.join(account.root, "cur", name), "wb") as file:
        file.write(text)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    [copied] = mailbox.copy([1], "INBOX").target
    file = mailbox.open_message(copied)
    assert (file.size, file.read()) == (len(to_crlf(text)), to_crlf(text))
    file.close()


def test_a_change_of_flags_is_followed(mailbox):
    mailbox.read_whole([1], 1000)
    mailbox.store_flags([1, 3], FlagChange.ADD, ("\\Seen",))
    assert texts_of(mailbox) == [to_crlf(text) for text in TEXTS]


def test_a_file_that_another_program_has_renamed_is_asked_for_again(mailbox):
    mailbox.read_whole([1], 1000)
    cur = mailbox.watched_paths[0]
    for name in os.listdir(cur):
        os.rename(os.path.join(cur, name), os.path.join(cur, name + "S"))
    assert texts_of(mailbox) == [None] * len(TEXTS)
    mailbox.refresh()
    mailbox.read_whole([1, 2], 1000)
    assert texts_of(mailbox) == [to_crlf(text) for text in TEXTS[:2]] + [None] * (len(TEXTS) - 2)


def test_an_expunged_message_is_gone(mailbox):
    mailbox.read_whole([1], 1000)
    mailbox.expunge([2], only_deleted=False)
    assert mailbox.read_cached(2, None, False) is None


def test_the_names_of_many_messages_cost_one_query(tmp_path, monkeypatch):
    account = MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test").account(USER)
    for number in range(2 * GROUP):
        with open(os.path.join(account.root, "cur", f"17000{number:05d}.a.host:2,"), "wb") as file:
            file.write(TEXTS[0])
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    asked = []
    files_of = Messages.files_of

    def recorded(messages, key, uids):
        asked.append(len(uids))
        return files_of(messages, key, uids)

    monkeypatch.setattr(Messages, "files_of", recorded)
    for uid in range(1, 2 * GROUP):
        if mailbox.read_cached(uid, None, False) is None:
            assert mailbox.read_whole([uid], 1000) == [(uid, to_crlf(TEXTS[0]))]
    # A page that the kernel is writing just now is not read without waiting: that message is asked for by itself.
    assert [number for number in asked if number > 1] == [GROUP, GROUP]
    asked.clear()
    # Reading a whole mailbox, as a search does, must not drop all other names.
    mailbox.read_whole(range(1, 2 * GROUP), 1 << 20)
    assert asked == [2 * GROUP - 1]


def test_names_are_bounded_in_octets():
    names = FileNames(octets=20_000)
    name = b"cur/" + b"x" * 50
    for group in range(10):
        uids = names.lacks("mailbox", [group * GROUP])
        assert uids == range(group * GROUP, (group + 1) * GROUP)
        names.keep("mailbox", uids, [(uid, name) for uid in uids])
        assert names.octets_kept <= 20_000
    assert names.find("mailbox", 9 * GROUP) == name
    assert names.find("mailbox", 0) is None
    assert names.find("another", 9 * GROUP) is None
    names.change("mailbox", [(9 * GROUP, b"cur/y"), (0, b"cur/z")])
    assert names.find("mailbox", 9 * GROUP) == b"cur/y"
    assert names.find("mailbox", 0) is None
    names.change("mailbox", [(8 * GROUP + at, b"cur/" + b"x" * 150) for at in range(GROUP)])
    assert names.octets_kept <= 20_000, "longer names take room too"
    names.forget("mailbox", range(10 * GROUP))
    assert names.octets_kept == 0
