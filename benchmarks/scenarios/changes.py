"""STORE, APPEND, COPY, MOVE, EXPUNGE, and mailboxes: LIST, LIST-STATUS, CREATE, DELETE."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.accounts import SIZES, Accounts
from benchmarks.client import Imap
from benchmarks.mail import FOLDERS
from benchmarks.scenarios.scenario import KIB_4, KIB_100, Scenario, Work, forget
from benchmarks.servers import TestedServer

BATCH = 300
"""Messages that are copied, moved or expunged by one command."""
CREATED = 50


def store(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k1)
    yield None
    for number in range(1, 201):
        client.command(b"STORE %d +FLAGS (\\Flagged)" % number)
    client.command(b"STORE 1:200 -FLAGS.SILENT (\\Flagged)")
    yield 201
    client.close()


def _store_many(flag: bytes, *, silent: bool) -> Work:
    """Set and remove a flag or keyword of 10,000 messages, by one command each."""
    lines = 0 if silent else SIZES["changed"]
    suffix = b".SILENT" if silent else b""

    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, accounts.changed)
        yield None
        for sign in (b"+", b"-"):
            answer = client.command(b"STORE 1:* %bFLAGS%b (%b)" % (sign, suffix, flag))
            assert answer.count(b" FETCH (FLAGS (") == lines, answer[:200]
        yield 2
        found = client.command(b"SEARCH %b" % (flag[1:] if flag.startswith(b"\\") else b"KEYWORD " + flag))
        assert found.startswith(b"* SEARCH\r\n"), found[:100]
        client.close()

    return work


def _scratch(side: TestedServer, accounts: Accounts, count: int) -> Imap:
    """Fill one mailbox of the account for changes with so many messages; its others are empty."""
    client = accounts.imap(side, accounts.scratch, select=False)
    for name in (b"From", b"To"):
        client.send(b"x1 DELETE %b\r\n" % name)
        while not client.line().startswith(b"x1 "):
            pass
        client.command(b"CREATE " + name)
    for number in range(count):
        data = accounts.mail.wire(number)
        client.send(b"x2 APPEND From {%d+}\r\n%b\r\n" % (len(data), data))
    done = 0
    while done < count:
        line = client.line()
        if line.startswith(b"x2 "):
            assert line.startswith(b"x2 OK"), line
            done += 1
    client.command(b"SELECT From")
    return client


def _append(octets: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = _scratch(side, accounts, 0)
        messages = [accounts.mail.wire_of_size(octets, number) for number in range(100)]
        yield None
        for data in messages:
            client.send(b"a APPEND From {%d+}\r\n%b\r\n" % (len(data), data))
            client.answer(b"a ")
        yield 100
        client.close()

    return work


def copy(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, BATCH)
    yield None
    client.command(b"COPY 1:* To")
    yield BATCH
    client.close()


def move(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, BATCH)
    yield None
    client.command(b"MOVE 1:* To")
    yield BATCH
    client.close()


def expunge(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, BATCH)
    client.command(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
    yield None
    assert client.command(b"EXPUNGE").count(b" EXPUNGE\r\n") == BATCH
    yield BATCH
    client.close()


def list_mailboxes(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.folders, select=False)
    client.command(b'LIST "" "*"')
    yield None
    for _ in range(20):
        answer = client.command(b'LIST "" "*"')
        assert answer.count(b"* LIST (") == FOLDERS + 1, answer.count(b"* LIST (")
    yield 20
    client.close()


_LIST_STATUS = b'LIST "" "*" RETURN (STATUS (MESSAGES UNSEEN UIDNEXT UIDVALIDITY))'


def _count_statuses(answer: bytes) -> None:
    assert answer.count(b"* STATUS ") == answer.count(b"* LIST (") == FOLDERS + 1, answer.count(b"* STATUS ")


def list_status_first(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    # All mailboxes but INBOX have their UIDs from an earlier time.
    client = accounts.imap(side, accounts.folders, select=False)
    client.command(_LIST_STATUS)
    client.close()
    forget(side, accounts, accounts.folders)
    client = accounts.imap(side, accounts.folders, select=False)
    yield None
    _count_statuses(client.command(_LIST_STATUS))
    yield 1
    client.close()


def list_status(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.folders, select=False)
    client.command(_LIST_STATUS)
    time.sleep(1.1)  # what was made just now proves nothing yet
    client.command(_LIST_STATUS)
    yield None
    for _ in range(20):
        _count_statuses(client.command(_LIST_STATUS))
    yield 20
    client.close()


def create(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.scratch, select=False)
    yield None
    _for_each_new(client, b"CREATE")
    yield CREATED
    _for_each_new(client, b"DELETE")
    client.close()


def delete(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.scratch, select=False)
    _for_each_new(client, b"CREATE")
    yield None
    _for_each_new(client, b"DELETE")
    yield CREATED
    client.close()


def _for_each_new(client: Imap, command: bytes) -> None:
    for number in range(CREATED):
        client.command(b"%b New-%d" % (command, number))


SCENARIOS = (
    Scenario("STORE, one by one", store),
    Scenario("STORE of 10k, flag", _store_many(b"\\Answered", silent=False), needs=("changed",)),
    Scenario("STORE of 10k, flag, silent", _store_many(b"\\Answered", silent=True), needs=("changed",)),
    Scenario("STORE of 10k, keyword", _store_many(b"$Done", silent=False), needs=("changed",)),
    Scenario("STORE of 10k, keyword, silent", _store_many(b"$Done", silent=True), needs=("changed",)),
    Scenario("APPEND of 4 KiB", _append(KIB_4), needs=("scratch",)),
    Scenario("APPEND of 100 KiB", _append(KIB_100), needs=("scratch",)),
    Scenario("COPY of 300", copy, needs=("scratch",)),
    Scenario("MOVE of 300", move, needs=("scratch",)),
    Scenario("EXPUNGE of 300", expunge, 0.29, needs=("scratch",)),
    Scenario("LIST of 300", list_mailboxes, needs=("folders",)),
    Scenario("LIST-STATUS of 300, first", list_status_first, 0.12, needs=("folders", "warm")),
    Scenario("LIST-STATUS of 300", list_status, 0.5, needs=("folders",)),
    Scenario("CREATE", create, needs=("scratch",)),
    Scenario("DELETE", delete, needs=("scratch",)),
)
