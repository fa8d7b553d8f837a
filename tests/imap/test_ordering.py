"""SORT and THREAD over the memory store; the orders themselves are in tests/store/order."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from mailserver.imap.search import evaluation, thread_response
from mailserver.imap.search.thread_response import write_threads
from mailserver.store.order.forest import Forest
from mailserver.store.order.steps import Steps
from tests.fakes import Client
from tests.imap.sessions import logged_in, selected, services

COMMANDS = (
    b'SORT (REVERSE DATE SUBJECT) UTF-8 1:2 SUBJECT "x"',
    b"UID SORT (DISPLAYFROM) us-ascii OR SEEN UID 1:*",
    b'THREAD REFERENCES "utf-8" (FROM x) TO y',
    b"UID THREAD ORDEREDSUBJECT UTF-8 ALL",
    b"UID SORT RETURN (PARTIAL -1:-2 MIN SAVE) (DATE) UTF-8 $",
    b"SEARCH RETURN (PARTIAL 1:2 COUNT) YOUNGER 100 UID $",
    b'UID SORT RETURN (RELEVANCY ALL) (RELEVANCY) UTF-8 FUZZY (TEXT "a b" NOT 1)',
    b"FETCH $ FLAGS",
    b"UID FETCH 1:* FLAGS (PARTIAL -1:-2 CHANGEDSINCE 1)",
)


def cut(command: bytes) -> Iterator[bytes]:
    """The command truncated at each octet, and with each octet replaced."""
    for at in range(len(command)):
        yield command[:at]
        for other in b"( )\x01":
            yield command[:at] + bytes([other]) + command[at + 1 :]


@pytest.mark.parametrize("command", COMMANDS)
def test_whatever_is_wrong_is_refused(command: bytes) -> None:
    """A bug would fail the test by itself."""
    for wrong in cut(command):
        client = selected(services(), messages=2)
        answer = client.ask(b"a " + wrong + b"\r\n")
        assert re.search(rb"^(a|\*|\+) (OK|NO|BAD)", answer, re.MULTILINE), (wrong, answer)
        assert b"SERVERBUG" not in answer


def test_so_many_keys_are_refused() -> None:
    client = selected(services(), messages=1)
    assert client.ask(b"a SORT (%b) UTF-8 ALL\r\n" % b" ".join([b"DATE"] * 51)).startswith(b"a NO [LIMIT] ")


def append(client: Client, date: bytes, message: bytes) -> None:
    assert b"OK" in client.ask(b'p APPEND INBOX "%b" {%d+}\r\n%b\r\n' % (date, len(message), message))


def numbered(client: Client, count: int) -> None:
    for number in range(count):
        date = b"%02d-Feb-1994 12:00:00 +0000" % (number * 7 % 28 + 1)
        append(
            client,
            date,
            b"Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\n%b" % (number % 5, number, b"x" * (number % 9)),
        )


def test_a_large_mailbox_is_ordered_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    numbered(client, 23)
    client.ask(b"s SELECT INBOX\r\n")
    commands = (
        b"a SORT (REVERSE SIZE ARRIVAL) UTF-8 ALL\r\n",
        b"a UID SORT (ARRIVAL) UTF-8 2:4,7:20\r\n",
        b"a THREAD REFERENCES UTF-8 ALL\r\n",
        b"a UID THREAD ORDEREDSUBJECT UTF-8 NOT 3\r\n",
    )
    whole = [client.ask(command) for command in commands]
    assert all(answer.count(b"\r\n") == 2 for answer in whole)
    for size in (1, 3, 10):
        monkeypatch.setattr("mailserver.imap.search.columns.SLICE", size)
        monkeypatch.setattr("mailserver.imap.search.results.SLICE", size)
        monkeypatch.setattr("mailserver.imap.search.ordering.SLICE", size)
        monkeypatch.setattr(thread_response, "_PART", size)
        assert [client.ask(command) for command in commands] == whole


def test_sizes_and_dates_that_are_not_known_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    numbered(client, 9)
    client.ask(b"s SELECT INBOX\r\n")
    commands = (b"a SORT (SIZE) UTF-8 ALL\r\n", b"a SORT (ARRIVAL) UTF-8 ALL\r\n")
    known = [client.ask(command) for command in commands]
    columns = client.session.view.columns
    client.session.account.orders.forget_mailbox(client.session.selected.live)
    measured: list[int] = []
    measure = evaluation._read_facts
    monkeypatch.setattr(evaluation, "_read_facts", lambda uids, *rest: (measured.extend(uids), measure(uids, *rest))[1])
    for at in (2, 5):
        columns.sizes[at], columns.dates[at] = 0xFFFFFFFF, -(2**63)
    assert [client.ask(command) for command in commands] == known
    assert measured == [3, 6], "once, for both"


def test_messages_that_another_session_has_expunged_are_ordered_still() -> None:
    service = services()
    client = logged_in(service)
    numbered(client, 4)
    client.ask(b"s SELECT INBOX\r\n")
    other = logged_in(service)
    other.ask(b"s SELECT INBOX\r\n")
    other.ask(b"a STORE 2 +FLAGS (\\Deleted)\r\n")
    other.ask(b"a EXPUNGE\r\n")
    answer = client.ask(b"a SORT (REVERSE ARRIVAL) UTF-8 ALL\r\n")
    assert sorted(answer.partition(b"\r\n")[0].split()[2:]) == [b"1", b"2", b"3", b"4"]
    assert b"EXPUNGE" not in answer
    answer = client.ask(b"a UID SORT (REVERSE ARRIVAL) UTF-8 ALL\r\n")
    assert b"* 2 EXPUNGE\r\n" in answer
    answer = client.ask(b"a THREAD REFERENCES UTF-8 ALL\r\n")
    assert sorted(re.findall(rb"[0-9]+", answer.partition(b"\r\n")[0])) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("command", [b"SORT (SUBJECT)", b"UID SORT (REVERSE ARRIVAL)", b"THREAD REFERENCES"])
def test_messages_that_only_another_session_knows_are_left_out(command: bytes) -> None:
    """The order of more messages is kept by then."""
    service = services()
    client = logged_in(service)
    numbered(client, 6)
    client.ask(b"s SELECT INBOX\r\n")
    other = logged_in(service)
    numbered(other, 3)
    other.ask(b"s SELECT INBOX\r\n")
    for session, count in ((other, 9), (client, 6), (other, 9), (client, 9)):
        answer = session.ask(b"a %b UTF-8 ALL\r\n" % command)
        numbers = re.findall(rb"\d+", answer.partition(b"\r\n")[0])
        assert sorted(map(int, numbers)) == list(range(1, count + 1))


def test_a_long_run_lets_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=5)
    number = iter(range(10_000))
    steps: list[Steps] = []

    def made(work: object) -> Steps:
        steps.append(Steps(work, clock=number.__next__))
        return steps[-1]

    monkeypatch.setattr("mailserver.imap.search.ordering.Steps", made)
    drains = client.channel.drains
    assert client.ask(b"a SORT (SUBJECT) UTF-8 ALL\r\n").startswith(b"* SORT 1 2 3 4 5\r\n")
    assert client.channel.drains - drains >= 2
    assert len(steps) == 1


def test_one_long_order_runs_at_a_time_for_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may hold hundreds of megabytes, and fifty sessions may ask at once."""
    monkeypatch.setattr("mailserver.imap.search.ordering._SHORT", 3)
    number = iter(range(10_000))
    monkeypatch.setattr("mailserver.imap.search.ordering.Steps", lambda work: Steps(work, clock=number.__next__))
    service = services()
    clients = [selected(service, messages=2) for _ in range(3)]
    first, second, third = clients
    for client in clients:
        client.ask(b"n NOOP\r\n")
        # Each pause between two steps lasts until the clock passes.
        monkeypatch.setattr(client.channel, "drain", lambda channel=client.channel: channel.sleep(1.0))
    first.send(b"a THREAD REFERENCES UTF-8 ALL\r\n")
    begun = next(number)
    second.send(b"b SORT (SUBJECT) UTF-8 NOT 1\r\n")
    third.send(b"c THREAD REFS UTF-8 NOT 2\r\n")
    for client in (second, third):
        client.wait(30.0)
        assert not re.search(rb"^(\* (SORT|THREAD)|[bc] )", client.take(), re.MULTILINE)
    assert next(number) == begun + 1, "no step of theirs"
    assert b"d OK" in waited(selected(service), b"d SORT (SUBJECT) UTF-8 1\r\n"), "a short one does not wait"
    first.hang_up()
    third.hang_up()
    second.wait(60.0)
    assert re.search(rb"^\* SORT [2-6 ]+\r\nb OK", second.take(), re.MULTILINE)
    assert not second.session.account.orders_running


def waited(client: Client, command: bytes) -> bytes:
    client.send(command)
    client.wait(30.0)
    return client.take()


def test_values_of_one_request_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=3)
    for command in (b"a THREAD REFERENCES UTF-8 ALL\r\n", b"a SORT (FROM) UTF-8 ALL\r\n"):
        monkeypatch.setattr("mailserver.store.order.values.MAX_OCTETS", 100)
        assert client.ask(command).startswith(b"a NO [LIMIT] ")
        monkeypatch.setattr("mailserver.store.order.values.MAX_OCTETS", 3000)
        assert b"a OK" in client.ask(command)


def test_ten_thousand_nested_threads_are_written() -> None:
    count = 10_000
    children = {at: [at + 1, count + at] for at in range(count - 1)}
    answer = b"".join(write_threads(Forest([(0,)], children), range(1, 2 * count + 1)))
    assert answer.startswith(b"* THREAD (1 (2 (3 (4 ")
    assert answer.count(b"(") == answer.count(b")") == 2 * (count - 1) + 1
    assert answer.endswith(b"(10001))\r\n")


def naive_order(client: Client, *, uid: bool) -> bytes:
    """The answer to SORT (SUBJECT REVERSE ARRIVAL), computed anew by a session of its own."""
    client.session.account.orders.forget_mailbox(client.session.selected.live)
    return client.ask(b"a %bSORT (SUBJECT REVERSE ARRIVAL) UTF-8 ALL\r\n" % (b"UID " if uid else b""))


def test_orders_are_kept_and_extended() -> None:
    service = services()
    client, other = logged_in(service), logged_in(service)
    numbered(client, 30)
    for each in (client, other):
        each.ask(b"s SELECT INBOX\r\n")
    live = client.session.selected.live
    reads: list[int] = []
    sort_keys = live.mailbox.sort_keys

    def counted(uids: list[int], names: object) -> object:
        reads.append(len(uids))
        return sort_keys(uids, names)

    live.mailbox.sort_keys = counted
    command = b"a UID SORT (SUBJECT REVERSE ARRIVAL) UTF-8 ALL\r\n"
    first = client.ask(command)
    assert sum(reads) == 30
    reads.clear()
    assert client.ask(command) == first, "kept"
    assert other.ask(command) == first, "for other sessions, too"
    assert not reads
    part = client.ask(b"a SORT (SUBJECT REVERSE ARRIVAL) UTF-8 2:29\r\n")
    assert len(part.partition(b"\r\n")[0].split()) == 30
    assert not reads, "a part of it is made of the whole"
    numbered(other, 1)
    client.ask(b"a NOOP\r\n")
    extended = client.ask(command)
    assert sum(reads) <= 6, "one, and what it is compared with"
    assert extended == naive_order(client, uid=True)
    reads.clear()
    other.ask(b"a STORE 3,9 +FLAGS (\\Deleted)\r\n")
    other.ask(b"a EXPUNGE\r\n")
    numbered(other, 2)
    client.ask(b"a NOOP\r\n")
    shortened = client.ask(command)
    assert 0 < sum(reads) <= 12
    assert shortened == naive_order(client, uid=True)
    numbers = client.ask(b"a SORT (SUBJECT REVERSE ARRIVAL) UTF-8 ALL\r\n")
    assert numbers == naive_order(client, uid=False)


def test_nothing_is_kept_of_messages_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    numbered(client, 5)
    client.ask(b"s SELECT INBOX\r\n")
    mailbox = client.session.selected.live.mailbox
    commands = (b"a SORT (REVERSE SUBJECT) UTF-8 ALL\r\n", b"a THREAD REFERENCES UTF-8 ALL\r\n")
    sort_keys = mailbox.sort_keys
    read: list[int] = []

    def all_but_one(uids: list[int], names: object) -> object:
        read.extend(uids)
        return sort_keys(uids[:-1], names)

    monkeypatch.setattr(mailbox, "sort_keys", all_but_one, raising=False)
    for _ in range(2):
        for command in commands:
            read.clear()
            client.ask(command)
            assert len(read) == 5
    assert client.ask(commands[0]).startswith(b"* SORT 4 3 2 1 5\r\n")
    monkeypatch.undo()
    assert client.ask(commands[0]).startswith(b"* SORT 5 4 3 2 1\r\n")
