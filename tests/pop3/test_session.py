from __future__ import annotations

import base64

import pytest

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.pop3.maildrop import AHEAD
from mailserver.store.flags import DELETED, SEEN, FlagChange
from mailserver.store.live import LiveMailbox
from mailserver.store.memory import MemoryMessage
from mailserver.types import UNKNOWN_SIZE
from tests.fakes import info, run_now
from tests.pop3.dialogs import GREETING, ONE, TWO, World, play


def test_capabilities_and_passwords_before_tls() -> None:
    world = World()
    client = world.connect(info("pop3"))
    play(
        client,
        """
        C: CAPA
        S: +OK capabilities follow
        S: TOP
        S: UIDL
        S: RESP-CODES
        S: AUTH-RESP-CODE
        S: PIPELINING
        S: EXPIRE NEVER
        S: STLS
        S: UTF8
        S: .
        C: USER anna@example.test
        C: USER nobody
        C: PASS secret
        C: AUTH PLAIN
        C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
        C: AUTH NONSENSE
        S: -ERR this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
        S: -ERR this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
        S: -ERR this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
        S: -ERR this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
        S: -ERR this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
        S: -ERR this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
        C: STLS
        S: +OK begin TLS
        C: CAPA
        S: +OK capabilities follow
        S: TOP
        S: UIDL
        S: RESP-CODES
        S: AUTH-RESP-CODE
        S: PIPELINING
        S: EXPIRE NEVER
        S: USER
        S: SASL PLAIN LOGIN
        S: UTF8 USER
        S: .
        """,
        "whole",
    )
    assert world.authenticator.contexts == []


def test_a_chosen_listener_takes_passwords_without_tls() -> None:
    client = World().connect(info("pop3", cleartext=True))
    assert client.take() == GREETING
    answer = client.ask(b"CAPA\r\n")
    assert b"\r\nUSER\r\nSASL PLAIN LOGIN\r\nSTLS\r\n" in answer
    assert client.ask(b"USER anna@example.test\r\nPASS secret\r\n").endswith(b"+OK 0 messages (0 octets)\r\n")
    assert b"STLS" not in client.ask(b"CAPA\r\n")
    assert client.ask(b"STLS\r\n").startswith(b"-ERR")


def test_what_was_learnt_before_tls_is_forgotten() -> None:
    client = World().connect(info("pop3", cleartext=True))
    client.send(b"USER anna@example.test\r\n")
    client.send(b"STLS\r\n")
    client.take()
    assert client.ask(b"PASS secret\r\n") == b"-ERR USER must come first\r\n"


@pytest.mark.parametrize("behind", [b"N", b"USER anna@example.test\r\n", b"\r\n"])
def test_bytes_behind_stls_end_the_connection(behind: bytes) -> None:
    client = World().connect(info("pop3"))
    assert client.ask(b"STLS\r\n" + behind) == GREETING + b"-ERR nothing may follow STLS before the handshake\r\n"
    assert client.channel.closed
    assert client.channel.info.tls is None
    assert client.channel.logged == [("plaintext-behind-stls", {})]


def test_implementation_only_after_login() -> None:
    world = World()
    client = world.connect()
    assert b"IMPLEMENTATION" not in client.ask(b"CAPA\r\n")
    assert b"\r\nIMPLEMENTATION mailserver" in world.log_in().ask(b"CAPA\r\n")


def test_the_password_may_hold_spaces_and_any_octets() -> None:
    world = World()
    world.authenticator.users["anna@example.test"] = " two  wörds "
    client = world.connect()
    client.send(b"USER anna@example.test\r\nPASS  two  w\xc3\xb6rds \r\n")
    assert client.take().endswith(b"+OK 0 messages (0 octets)\r\n")


def test_unique_ids_are_dovecots() -> None:
    world = World()
    world.deliver(ONE, TWO)
    client = world.log_in()
    validity = world.store.account("anna@example.test").mailbox("INBOX").load().uid_validity
    assert (
        client.ask(b"UIDL\r\nUIDL 2\r\n")
        == (
            f"+OK unique-ids follow\r\n1 00000001{validity:08x}\r\n2 00000002{validity:08x}\r\n.\r\n"
            f"+OK 2 00000002{validity:08x}\r\n"
        ).encode()
    )


def test_quit_deletes_what_is_marked_and_nothing_else() -> None:
    world = World()
    world.deliver(ONE, TWO, ONE)
    inbox = world.store.account("anna@example.test").mailbox("INBOX")
    inbox.store_flags([inbox.load().rows[1].uid], FlagChange.ADD, ["\\Deleted"])
    client = world.log_in()
    client.send(b"DELE 1\r\n")
    world.deliver(b"late\r\n")
    assert world.kept() == [ONE, TWO, ONE, b"late\r\n"]
    assert client.ask(b"QUIT\r\n").endswith(b"+OK goodbye\r\n")
    assert world.kept() == [TWO, ONE, b"late\r\n"]
    assert inbox.load().rows[0].flags & DELETED
    assert client.channel.closed
    assert world.live_users() == 0


@pytest.mark.parametrize("cut", ["hang up", "time out", "http"])
def test_without_quit_nothing_is_deleted(cut: str) -> None:
    world = World()
    world.deliver(ONE)
    client = world.log_in()
    client.send(b"DELE 1\r\n")
    client.take()
    if cut == "hang up":
        client.hang_up()
    elif cut == "time out":
        client.wait(601)
    else:
        client.send(b"POST / HTTP/1.0\r\n\r\n")
    assert client.done
    assert client.take() == b""
    assert world.kept() == [ONE]
    assert world.live_users() == 0


def test_a_failing_deletion_is_told_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.deliver(ONE)
    client = world.log_in()
    client.send(b"DELE 1\r\n")
    client.take()

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(type(world.store.account("anna@example.test").mailbox("INBOX")), "expunge", fail)
    answer = client.ask(b"QUIT\r\n")
    assert answer == b"-ERR [SYS/TEMP] the mail storage is not available, try again later\r\n"
    assert [fields["command"] for event, fields in client.channel.logged if event == "storage-failed"] == ["QUIT"]
    assert client.channel.closed
    assert world.kept() == [ONE]


def test_quit_flags_what_was_retrieved(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.deliver(*[ONE] * 6)
    inbox = world.store.account("anna@example.test").mailbox("INBOX")

    def seen() -> list[int]:
        return [row.uid for row in inbox.load().rows if row.flags & SEEN]

    client = world.log_in()
    client.ask(b"RETR 1\r\nTOP 2 5\r\nRETR 3\r\nDELE 3\r\n")
    assert seen() == [], "only QUIT changes anything"
    client.hang_up()
    assert seen() == []
    client = world.log_in()
    client.ask(b"RETR 1\r\nRETR 2\r\nRSET\r\nRETR 1\r\nTOP 2 5\r\nRETR 3\r\nDELE 3\r\nRETR 5\r\n")
    runner = client.session.maildrop._live.account._runner
    inbox.expunge([5], only_deleted=False)
    runs = runner.runs
    assert client.ask(b"QUIT\r\n") == b"+OK goodbye\r\n"
    assert runner.runs - runs == 1
    assert seen() == [1]
    assert [row.uid for row in inbox.load().rows] == [1, 2, 4, 6]

    def fail(*_: object, **__: object) -> None:
        raise NoSpace

    monkeypatch.setattr(type(inbox), "store_flags", fail)
    client = world.log_in()
    client.ask(b"RETR 2\r\nDELE 1\r\n")
    assert client.ask(b"QUIT\r\n") == b"+OK goodbye\r\n", "mail is deleted though flags cannot be written"
    assert [row.uid for row in inbox.load().rows] == [2, 4, 6]
    assert seen() == []


def test_reading_ahead() -> None:
    """Who takes one message after the other waits for the store rarely, and gets the same."""
    world = World()
    texts = [b"Subject: %d\r\n\r\n%b\r\n" % (number, b"x" * (number * 40)) for number in range(1, 51)]
    texts[29] = b"Subject: large\r\n\r\n" + b"y" * AHEAD + b"\r\n"
    world.deliver(*texts)
    inbox = world.store.account("anna@example.test").mailbox("INBOX")
    client = world.log_in()
    live = client.session.maildrop._live
    runs = live.account._runner.runs
    for number, text in enumerate(texts, 1):
        if number == 11:
            # Read already: what a session has been told is there stays as long as it can.
            inbox.expunge([12], only_deleted=False)
        if number == 31:
            inbox.expunge([33], only_deleted=False)
            client.send(b"DELE 35\r\n")
            client.take()
        answer = client.ask(b"RETR %d\r\n" % number)
        if number in (33, 35):
            assert answer.startswith(b"-ERR ")
        else:
            assert answer == b"+OK %d octets\r\n%b.\r\n" % (len(text), text)
    # One turn for 1 to 29; 30 in pieces of 64 KiB; from 31; 33 which is gone; from 34; from 36.
    assert live.account._runner.runs - runs == 1 + 3 + 1 + 1 + 1 + 1
    assert client.ask(b"RETR 20\r\n") == b"+OK %d octets\r\n%b.\r\n" % (len(texts[19]), texts[19])


def test_what_need_not_be_waited_for_needs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second piece is not in memory, of the third only a part is."""
    world = World()
    text = b"Subject: large\r\n\r\n" + b"y" * 300_000 + b"\r\n"
    world.deliver(text)
    client = world.log_in()
    lengths = iter([0, 1000])

    def read_now(self: MemoryMessage, offset: int, count: int) -> bytes | None:
        return self.read(offset, next(lengths, count)) or None

    monkeypatch.setattr(MemoryMessage, "read_now", read_now)
    runs = client.session.maildrop._live.account._runner.runs
    assert client.ask(b"RETR 1\r\n") == b"+OK %d octets\r\n%b.\r\n" % (len(text), text)
    assert client.session.maildrop._live.account._runner.runs - runs == 2


def test_the_listing_does_not_move() -> None:
    world = World()
    world.deliver(ONE, TWO)
    client = world.log_in()
    inbox = world.store.account("anna@example.test").mailbox("INBOX")
    inbox.expunge([inbox.load().rows[0].uid], only_deleted=False)
    world.deliver(b"new\r\n")
    other = world.log_in()
    assert other.ask(b"STAT\r\n") == b"+OK 2 38\r\n"
    assert client.ask(b"STAT\r\nLIST 2\r\n") == b"+OK 2 72\r\n+OK 2 33\r\n"
    assert client.ask(b"RETR 1\r\n").startswith(b"-ERR ")
    assert client.ask(b"RETR 2\r\n").startswith(b"+OK 33 octets\r\nSubject: two\r\n")
    assert client.ask(b"DELE 1\r\nQUIT\r\n").endswith(b"+OK goodbye\r\n")


def test_the_session_lock() -> None:
    world = World(lock="session")
    first = world.log_in()
    second = world.connect()
    second.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert second.take().endswith(b"-ERR [IN-USE] another session has the maildrop locked\r\n")
    first.hang_up()
    second.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert second.take().endswith(b"+OK 0 messages (0 octets)\r\n")
    # The refused login has not taken the lock of the other away.
    third = world.connect()
    third.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert b"[IN-USE]" in third.take()
    second.hang_up()
    third.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert b"+OK 0 messages" in third.take()


def test_without_the_lock_two_sessions_work() -> None:
    world = World()
    world.deliver(ONE)
    first, second = world.log_in(), world.log_in()
    assert first.ask(b"DELE 1\r\nQUIT\r\n").endswith(b"goodbye\r\n")
    assert second.ask(b"DELE 1\r\nQUIT\r\n").endswith(b"goodbye\r\n")
    assert world.kept() == []


def test_login_is_logged_without_secrets() -> None:
    client = World().connect()
    plain = base64.b64encode(b"\0anna@example.test\0secret")
    client.send(b"USER anna@example.test\r\nPASS wrong\r\nAUTH PLAIN " + plain + b"\r\nQUIT\r\n")
    assert [event for event, _ in client.channel.logged] == ["login-failed", "login", "logout"]
    assert "secret" not in str(client.channel.logged)
    assert "wrong" not in str(client.channel.logged).replace("wrong user name or password", "")


def test_sizes_that_the_columns_do_not_know_are_found_out_at_login() -> None:
    world = World()
    world.deliver(ONE, TWO)
    account = run_now(world.accounts.open("anna@example.test"))
    live = run_now(account.select("INBOX"))
    live.columns.sizes[1] = UNKNOWN_SIZE
    assert world.log_in().ask(b"LIST 2\r\n") == b"+OK 2 33\r\n"
    assert live.columns.sizes[1] == len(TWO)
    # A message that is gone before its size could be read is not listed.
    live.columns.sizes[0] = UNKNOWN_SIZE
    live.mailbox.expunge([live.columns.uids[0]], only_deleted=False)
    columns = live.columns
    account.select = lambda _name: _give(live)  # type: ignore[method-assign] - the expunge is not heard of yet
    assert columns.uids[0] == 1
    assert world.log_in().ask(b"LIST\r\n") == b"+OK 1 messages (33 octets)\r\n1 33\r\n.\r\n"


async def _give(live: LiveMailbox) -> LiveMailbox:
    live.users += 1
    return live


def test_a_login_that_fails_half_way_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.deliver(ONE)
    live = run_now(run_now(world.accounts.open("anna@example.test")).select("INBOX"))
    live.columns.sizes[0] = UNKNOWN_SIZE

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(live.mailbox, "measure", fail)
    client = world.connect()
    client.send(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.take().endswith(b"-ERR [SYS/TEMP] the mail storage is not available, try again later\r\n")
    assert live.users == 1
    assert live.account.users == 1


@pytest.mark.parametrize("error", [None, StoreUnavailable(), RuntimeError("boom")])
def test_a_message_that_breaks_off_is_never_whole(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.deliver(b"A: b\r\n\r\n" + b"x" * 200_000)
    client = world.connect()
    # For others it is read before its size is sent.
    client.ask(b"UTF8\r\nUSER anna@example.test\r\nPASS secret\r\n")
    client.allow_bugs = True
    read = MemoryMessage.read

    def fail(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        if offset:
            if error is None:
                return b""  # cut by another program
            raise error
        return read(self, offset, count)

    monkeypatch.setattr(MemoryMessage, "read", fail)
    answer = client.ask(b"RETR 1\r\nNOOP\r\n")
    assert answer.startswith(b"+OK 200008 octets\r\nA: b\r\n")
    assert answer.endswith(b"x")
    assert client.done


def test_the_size_told_is_the_size_sent() -> None:
    world = World()
    world.deliver(ONE, TWO)
    live = run_now(run_now(world.accounts.open("anna@example.test")).select("INBOX"))
    live.columns.sizes[1] = 7
    client = world.log_in()
    assert client.ask(b"RETR 2\r\n").startswith(b"+OK 33 octets\r\n")
    assert client.ask(b"LIST 2\r\n") == b"+OK 2 33\r\n"
