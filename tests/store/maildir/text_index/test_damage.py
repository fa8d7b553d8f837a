"""A text index that is damaged, has no room, or is made by two processes at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import apsw
import pytest

from mailserver.store.maildir.account import text_index
from mailserver.store.maildir.account.index_report import report
from mailserver.store.query import Body
from tests import sweeps
from tests.store.disk import USER, account_root, open_store
from tests.store.maildir.text_index.searches import WORDS, build, indexed, read, search
from tests.store.samples import message, put

MESSAGES = sweeps.choose(80, whole=200)


def garbage(path: str) -> None:
    with open(path, "r+b") as stream:
        stream.write(b"no database at all" * 100)


def shorter(path: str) -> None:
    os.truncate(path, os.stat(path).st_size // 2)


def empty(path: str) -> None:
    os.truncate(path, 0)


def zeros(path: str) -> None:
    with open(path, "r+b") as stream:
        stream.seek(4096)
        stream.write(bytes(os.stat(path).st_size - 4096))


def other_version(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")


def no_table(path: str) -> None:
    connection = apsw.Connection(path)
    connection.execute("DROP TABLE texts_data")
    connection.close()


def gone(path: str) -> None:
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("damage", [garbage, shorter, empty, zeros, other_version, no_table, gone])
def test_damage(root, account, damage, is_open):
    for number in range(MESSAGES):
        put(account, data=message(body=f"needle {number} " + " ".join(random.Random(number).choices(WORDS, k=200))))
    search(account, Body("needle"))
    build(account)
    account._home.text_index._index._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if not is_open:
        account.close()
        account = open_store(root).account(USER)
    damage(os.path.join(account_root(root), text_index.FILE_NAME))
    for _ in range(2):
        for needle in ("needle 77 ", "banana", "apple strasse", "zzz"):
            assert search(account, Body(needle)) == read(account, Body(needle))
        build(account)
    # Who had it open may have known all pages, and not have noticed.
    account.close()
    for _ in range(2):
        search(account, Body("needle"))
        build(account)
    assert indexed(account) == [MESSAGES], "it is made anew"
    put(account, data=message(body="needle too"))
    assert search(account, Body("needle 7")) == read(account, Body("needle 7"))
    account.close()


def test_a_directory_in_its_place_does_no_harm(root, account):
    os.mkdir(os.path.join(account_root(root), text_index.FILE_NAME))
    put(account, data=message(body="needle"))
    assert search(account, Body("needle")) == [1]
    pause = build(account)
    assert pause is not None
    assert pause > 60
    assert search(account, Body("needle")) == [1]


def test_a_search_needs_no_lock_to_get_past_damage(root, account):
    put(account, data=message(body="needle"))
    search(account, Body("needle"))
    build(account)
    account.close()
    lock = os.path.join(account_root(root), text_index.LOCK_NAME)
    os.unlink(lock)
    os.mkdir(lock)
    garbage(os.path.join(account_root(root), text_index.FILE_NAME))
    again = open_store(root).account(USER)
    assert search(again, Body("needle")) == [1]
    pause = build(again)
    assert pause is not None
    assert search(again, Body("needle")) == [1]
    again.close()


def test_a_full_disk(account, monkeypatch, caplog):
    for number in range(50):
        put(account, data=message(body=f"needle {number} " + " ".join(random.Random(number).choices(WORDS, k=900))))
    search(account, Body("needle"))
    build(account, 4)
    assert 0 < sum(indexed(account)) < 50
    account._home.text_index._index._connection.execute("PRAGMA max_page_count = 10")
    pause = build(account)
    assert pause is not None
    assert pause > 60, "it is tried again after minutes"
    assert "is unusable" in caplog.text
    assert search(account, Body("needle")) == list(range(1, 51))
    put(account, data=message(body="needle 51"))
    assert search(account, Body("needle 51")) == [51]
    assert account.maintain(lambda: False) is not None


def test_room_is_left_to_mail(account, monkeypatch):
    put(account, data=message(body="needle"))
    search(account, Body("needle"))
    monkeypatch.setattr(text_index, "_ROOM", 1 << 60)
    pause = build(account)
    assert pause is not None
    assert pause > 60
    assert report(account.root).text_index == 0


def test_two_processes_build_one_index(root, account):
    second = open_store(root).account(USER)
    for number in range(40):
        put(account, data=message(body=f"needle {number} " + "word " * 2000))
    for each in (account, second):
        search(each, Body("needle"))
    build(account, 3)
    with account._home.text_index._index.writing():
        pause = second.maintain(lambda: False)
        assert pause is not None
        assert 0 < pause <= 5
        assert search(second, Body("needle 33")) == [34], "a search waits for nobody"
    second._home.text_index._again = 0
    turn = 0
    while turn < 100:
        pauses = [each.maintain(lambda: False) for each in (account, second)]
        second.mailbox("INBOX").refresh()
        turn += 1
        if pauses == [None, None]:
            break
    assert indexed(account) == indexed(second) == [40]
    for each in (account, second):
        assert search(each, Body("needle 33")) == [34]
    second.mailbox("INBOX").expunge([34], only_deleted=False)
    assert search(account, Body("needle 33")) == []
    build(second)
    build(account)
    assert indexed(account) == [39]
    second.close()


BUILDER = """
import sys
from tests.store.disk import USER, open_store
from mailserver.store.query import Body
account = open_store(sys.argv[1]).account(USER)
mailbox = account.mailbox("INBOX")
mailbox.search(Body("needle"), [1])
print("ready", flush=True)
while True:
    account.maintain(lambda: False)
    account._home.text_index._again = 0
"""


def test_a_builder_that_is_killed(root, account):
    chooser = random.Random(5)
    for number in range(150):
        put(account, data=message(body=f"needle {number} " + " ".join(chooser.choices(WORDS, k=800))))
    for turn in range(sweeps.choose(3, whole=20)):
        with subprocess.Popen([sys.executable, "-c", BUILDER, root], stdout=subprocess.PIPE) as builder:
            assert builder.stdout is not None
            assert builder.stdout.readline() == b"ready\n"
            time.sleep(chooser.random() * 0.15)
            builder.send_signal(signal.SIGKILL)
        for needle in ("needle 14", "banana", "ab", "strasse x", "日本語 日本"):
            assert search(account, Body(needle)) == read(account, Body(needle))
        put(account, data=message(body=f"needle {turn} late"))
        account.mailbox("INBOX").expunge([turn * 3 + 1], only_deleted=False)
    build(account)
    account._home.text_index._again = 0
    build(account)
    assert indexed(account) == [150]
    for needle in ("needle 14", "late", "xxxx ab"):
        assert search(account, Body(needle)) == read(account, Body(needle))
