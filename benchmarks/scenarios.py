"""The scenarios. Each is a generator: it prepares, yields, does the work, and yields the number of operations.

Only what lies between the two yields is counted. Every reply is checked: a wrong answer ends the run.
"""

from __future__ import annotations

import ssl
from calendar import timegm
from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.accounts import Accounts
from benchmarks.client import Imap, Lines, tls_context
from benchmarks.corpus import RARE
from benchmarks.mail import BETWEEN, DISTINCT, FIRST_ARRIVAL, UNSEEN
from benchmarks.servers import TestedServer

MOST = 1.0
"""Most CPU that ours may take, as a multiple of Dovecot's."""

Work = Callable[[TestedServer, Accounts], Iterator[int | None]]


@frozen
class Scenario:
    """One row of the table."""

    name: str
    work: Work
    target: float = MOST
    """Below MOST where another server was measured at that share of Dovecot's CPU, or where an index should save it."""
    rounds: int = 3
    needs: tuple[str, ...] = ("k1",)
    """Accounts whose mail must be there: fields of `Accounts`."""


def login_plain(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    yield None
    for _ in range(40):
        client = accounts.imap(side, accounts.k1, select=False)
        client.close()
    yield 40


def handshake_full(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    yield None
    for _ in range(60):
        client = Imap(side.ports["imaps"], tls=side.ca)
        client.close()
    yield 60


def handshake_resumed(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    context = tls_context(side.ca)
    first = Imap(side.ports["imaps"], tls=side.ca)
    first.command(b"NOOP")  # TLS 1.3 tickets come with the first data
    assert isinstance(first.raw, ssl.SSLSocket)
    session = first.raw.session
    first.close()
    assert context is tls_context(side.ca)
    yield None
    for _ in range(60):
        client = Imap(side.ports["imaps"], tls=side.ca, session=session)
        client.command(b"NOOP")
        assert isinstance(client.raw, ssl.SSLSocket)
        assert client.raw.session_reused, "the session was not resumed"
        session = client.raw.session or session
        client.close()
    yield 60


def _select_first(user_of: Callable[[Accounts], str], size: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        user = user_of(accounts)
        side.forget(user)
        client = accounts.imap(side, user, select=False)
        yield None
        answer = client.command(b"SELECT INBOX")
        assert b"* %d EXISTS" % size in answer, answer
        yield 1
        client.close()

    return work


def _select_new_session(user_of: Callable[[Accounts], str], size: int, times: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        user = user_of(accounts)
        accounts.imap(side, user).close()
        clients = [accounts.imap(side, user, select=False) for _ in range(times)]
        yield None
        for client in clients:
            assert b"* %d EXISTS" % size in client.command(b"SELECT INBOX")
        yield times
        for client in clients:
            client.close()

    return work


def _select_same_session(user_of: Callable[[Accounts], str], size: int, times: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, user_of(accounts))
        yield None
        for _ in range(times):
            assert b"* %d EXISTS" % size in client.command(b"SELECT INBOX")
        yield times
        client.close()

    return work


def _fetch(user_of: Callable[[Accounts], str], command: bytes, lines: int, times: int, *, tls: bool = False) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, user_of(accounts), tls=tls)
        client.command(command)  # warm
        yield None
        for _ in range(times):
            answer = client.command(command)
            assert answer.count(b" FETCH (") == lines, answer.count(b" FETCH (")
        yield times
        client.close()

    return work


def envelope_cold(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    side.forget(accounts.k10)
    client = accounts.imap(side, accounts.k10)
    yield None
    answer = client.command(b"FETCH 1:* (ENVELOPE)")
    assert answer.count(b" FETCH (ENVELOPE ") == 10_000
    yield 1
    client.close()


def _search(command: bytes, expected: int | None, times: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, accounts.k10)
        client.command(command)
        yield None
        for _ in range(times):
            answer = client.command(command)
            found = answer.partition(b"\r\n")[0].split()[2:]
            assert expected is None or len(found) == expected, len(found)
        yield times
        client.close()

    return work


def search_text(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    """Search the text of a mailbox without an index of it: every message is read."""
    client = accounts.imap(side, accounts.k10)
    _search_text(client)  # warm
    side.forget_texts(accounts.k10)
    yield None
    _search_text(client)
    yield 1
    side.wait_for_texts(accounts.k10, 10_000)
    client.close()


def search_text_again(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k10)
    _search_text(client)
    side.wait_for_texts(accounts.k10, 10_000)
    yield None
    for _ in range(side.searches):
        _search_text(client)
    yield side.searches
    client.close()


def _search_text(client: Imap) -> None:
    lines = client.command(b'SEARCH TEXT "%b"' % RARE.encode()).split(b"\r\n")
    # Both servers send progress responses during a long search.
    found = next(line for line in lines if line.startswith(b"* SEARCH")).split()[2:]
    assert len(found) == 10, found


def store(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k1)
    yield None
    for number in range(1, 201):
        client.command(b"STORE %d +FLAGS (\\Flagged)" % number)
    client.command(b"STORE 1:200 -FLAGS.SILENT (\\Flagged)")
    yield 201
    client.close()


def _scratch(side: TestedServer, accounts: Accounts, count: int) -> Imap:
    """Fill one mailbox of the account for changes with so many messages; its others are empty."""
    client = accounts.imap(side, accounts.scratch, select=False)
    for name in (b"From", b"To"):
        client.send(b"x1 DELETE %b\r\n" % name)
        while not client.line().startswith(b"x1 "):
            pass
        client.command(b"CREATE " + name)
    data = accounts.mail.wire_of_size(4096)
    for _ in range(count):
        client.send(b"x2 APPEND From {%d+}\r\n%b\r\n" % (len(data), data))
    done = 0
    while done < count:
        line = client.line()
        if line.startswith(b"x2 "):
            assert line.startswith(b"x2 OK"), line
            done += 1
    client.command(b"SELECT From")
    return client


def append(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, 0)
    data = accounts.mail.wire_of_size(4096)
    yield None
    for _ in range(100):
        client.send(b"a APPEND From {%d+}\r\n%b\r\n" % (len(data), data))
        client.answer(b"a ")
    yield 100
    client.close()


def copy(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, 300)
    yield None
    client.command(b"COPY 1:* To")
    yield 300
    client.close()


def move(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, 300)
    yield None
    client.command(b"MOVE 1:* To")
    yield 300
    client.close()


def expunge(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = _scratch(side, accounts, 300)
    client.command(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
    yield None
    assert client.command(b"EXPUNGE").count(b" EXPUNGE\r\n") == 300
    yield 300
    client.close()


def noop(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k10)
    yield None
    for _ in range(3000):
        client.command(b"NOOP")
    yield 3000
    client.close()


def noop_pipelined(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k10)
    batch = b"".join(b"p NOOP\r\n" for _ in range(200))
    yield None
    for _ in range(50):
        client.send(batch)
        for _ in range(200):
            assert client.line().startswith(b"p OK")
    yield 10_000
    client.close()


def fetch_pipelined(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k10)
    batch = b"".join(b"p FETCH %d (FLAGS)\r\n" % number for number in range(1, 201))
    yield None
    for _ in range(10):
        client.send(batch)
        done = told = 0
        while done < 200:
            line = client.line()
            # A server may answer several commands before it completes them (RFC 3501 5.5).
            done += line.startswith(b"p OK")
            told += b" FETCH (FLAGS (" in line
        assert told == 200, told
    yield 2000
    client.close()


def lmtp(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = Lines(side.ports["lmtp"])
    client.reply(b"220")
    client.ask(b"LHLO bench.example.net\r\n", b"250")
    data = accounts.mail.wire_of_size(4096).replace(b"\r\n.", b"\r\n..")
    yield None
    for _ in range(100):
        client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
        client.ask(b"RCPT TO:<%b>\r\n" % accounts.lmtp.encode(), b"250")
        client.ask(b"DATA\r\n", b"354")
        client.ask(data + b"\r\n.\r\n", b"250")
    yield 100
    client.ask(b"QUIT\r\n", b"221")
    client.close()


def pop3(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    yield None
    client = Lines(side.ports["pop3"])
    client.reply(b"+OK")
    client.ask(b"USER %b\r\n" % accounts.k1.encode(), b"+OK")
    client.ask(b"PASS %b\r\n" % accounts.passwords[accounts.k1].encode(), b"+OK")
    client.ask(b"UIDL\r\n", b"+OK")
    client.until_dot()
    for number in range(1, 1001):
        client.ask(b"RETR %d\r\n" % number, b"+OK")
        assert client.until_dot() > 1000
    client.ask(b"QUIT\r\n", b"+OK")
    client.close()
    yield 1000


def k1(accounts: Accounts) -> str:
    return accounts.k1


def k10(accounts: Accounts) -> str:
    return accounts.k10


def k100(accounts: Accounts) -> str:
    return accounts.k100


def _since() -> int:
    """Return the number of unseen messages of 10,000 that arrived on 21 November 2023 or later."""
    day = timegm((2023, 11, 21, 0, 0, 0))
    return sum(number % UNSEEN == 0 and FIRST_ARRIVAL + number % DISTINCT * BETWEEN >= day for number in range(10_000))


SCENARIOS = (
    Scenario("login, plain", login_plain, 0.7),
    Scenario("TLS handshake, full", handshake_full),
    Scenario("TLS handshake, resumed", handshake_resumed, 0.5),
    Scenario("SELECT 1k, first", _select_first(k1, 1000)),
    Scenario("SELECT 10k, first", _select_first(k10, 10_000), needs=("k10",)),
    Scenario("SELECT 100k, first", _select_first(k100, 100_000), rounds=2, needs=("k100",)),
    Scenario("SELECT 1k, new session", _select_new_session(k1, 1000, 100)),
    Scenario("SELECT 10k, new session", _select_new_session(k10, 10_000, 100), needs=("k10",)),
    Scenario("SELECT 100k, new session", _select_new_session(k100, 100_000, 50), needs=("k100",)),
    Scenario("SELECT 1k, same session", _select_same_session(k1, 1000, 400)),
    Scenario("SELECT 10k, same session", _select_same_session(k10, 10_000, 400), needs=("k10",)),
    Scenario("SELECT 100k, same session", _select_same_session(k100, 100_000, 300), needs=("k100",)),
    Scenario("FETCH flags of 100k", _fetch(k100, b"FETCH 1:* (UID FLAGS)", 100_000, 2), needs=("k100",)),
    Scenario("FETCH flags one by one, pipelined", fetch_pipelined, 0.1, needs=("k10",)),
    Scenario("ENVELOPE of 10k, cold", envelope_cold, rounds=2, needs=("k10",)),
    Scenario("ENVELOPE of 10k, warm", _fetch(k10, b"FETCH 1:* (ENVELOPE)", 10_000, 2), 0.37, needs=("k10",)),
    Scenario("newest 50 of 10k", _fetch(k10, b"FETCH 9951:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)", 50, 40), needs=("k10",)),
    Scenario("bodies of 1k, plain", _fetch(k1, b"FETCH 1:* (BODY.PEEK[])", 1000, 1)),
    Scenario("bodies of 1k, TLS", _fetch(k1, b"FETCH 1:* (BODY.PEEK[])", 1000, 1, tls=True), 0.5),
    Scenario("SEARCH UNSEEN in 10k", _search(b"SEARCH UNSEEN", 3334, 60), needs=("k10",)),
    Scenario("SEARCH UNSEEN SINCE in 10k", _search(b"SEARCH UNSEEN SINCE 21-Nov-2023", _since(), 60), 0.2, needs=("k10",)),
    Scenario("SEARCH SUBJECT in 10k", _search(b'SEARCH SUBJECT "%b"' % RARE.encode(), 10, 5), needs=("k10",)),
    Scenario("SEARCH FROM in 10k", _search(b'SEARCH FROM "anna"', None, 5), needs=("k10",)),
    Scenario("SEARCH TEXT in 10k, first", search_text, rounds=2, needs=("k10",)),
    Scenario("SEARCH TEXT in 10k, again", search_text_again, 0.02, 2, needs=("k10",)),
    Scenario("STORE, one by one", store, 1 / 16),
    Scenario("APPEND", append, needs=("scratch",)),
    Scenario("COPY of 300", copy, needs=("scratch",)),
    Scenario("MOVE of 300", move, needs=("scratch",)),
    Scenario("EXPUNGE of 300", expunge, 1 / 3.5, needs=("scratch",)),
    Scenario("LMTP delivery", lmtp, 0.7, needs=("lmtp",)),
    Scenario("POP3 download of 1k", pop3),
    Scenario("NOOP", noop, needs=("k10",)),
    Scenario("NOOP, pipelined", noop_pipelined, needs=("k10",)),
)  # fmt: skip
