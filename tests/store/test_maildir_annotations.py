"""Annotations on disk: they survive the index, and another worker's status shows at once that the modseq is another one."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from tests.fakes import Client
from tests.imap.sessions import logged_in, services
from tests.store.disk import INDEX_FILES, USER, open_store
from tests.store.samples import put


def test_they_survive_the_index(tmp_path: Path) -> None:
    account = open_store(str(tmp_path)).account(USER)
    account.create("a")
    account.annotate("a", {"/private/x": b"1"}, 10)
    account.annotate(None, {"/private/y": b"2"}, 10)
    account.close()
    for name in INDEX_FILES:
        Path(account.root, name).unlink(missing_ok=True)
    account = open_store(str(tmp_path)).account(USER)
    assert account.annotations("a") == {"/private/x": b"1"}
    assert account.annotations(None) == {"/private/y": b"2"}
    assert account.annotate("a", {"/private/x": b"1"}, 10) is None
    account.close()


def test_a_kept_status_of_another_worker_does_not_outlive_a_change(tmp_path: Path) -> None:
    account = open_store(str(tmp_path)).account(USER)
    put(account)
    account.close()
    one, other = (logged_in(services(store=open_store(str(tmp_path))), USER) for _ in range(2))
    # Claimed, and older than a clock tick: only then is a status kept.
    assert b"b OK" in one.ask(b"b SELECT INBOX\r\n")
    for folder in ("new", "cur"):
        os.utime(Path(account.root, folder), ns=(time.time_ns() - 10**10,) * 2)
    before = [modseq(other) for _ in range(2)]
    assert before == [modseq(one)] * 2
    assert b"c OK" in one.ask(b'c SETMETADATA INBOX (/private/x "1")\r\n')
    assert modseq(other) == modseq(one) > before[0]


def modseq(client: Client) -> int:
    found = re.search(rb"STATUS INBOX \(HIGHESTMODSEQ ([0-9]+)\)", client.ask(b"a STATUS INBOX (HIGHESTMODSEQ)\r\n"))
    assert found is not None
    return int(found[1])
