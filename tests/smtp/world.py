"""A submission and LMTP server for tests, with accounts in memory, and a next hop that does what it is told."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

from mailserver.config.kinds import Size
from mailserver.config.model import Limits, Lmtp, Mail, Submission
from mailserver.errors import RelayDown
from mailserver.message.summary import Summary
from mailserver.sasl.mechanism import Credentials
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from mailserver.session.channel import ConnectionInfo
from mailserver.smtp.lmtp import LmtpServices, LmtpSession
from mailserver.smtp.spool import FileSpool
from mailserver.smtp.submission import SubmissionServices, SubmissionSession
from mailserver.smtp.tables import LMTP, SUBMISSION
from mailserver.store.live import LiveAccounts
from mailserver.store.memory import MemoryAccount, MemoryPrepared, MemoryStaged, MemoryStore
from tests.fakes import Client, DirectRunner, FakeAuthenticator, info

T = TypeVar("T")

EMPTY_SUMMARY = Summary(b"", b"", b"", b"")
GREETING = b"220 mail.example.test ESMTP ready\r\n"
LMTP_GREETING = b"220 mail.example.test LMTP ready\r\n"
NOW = 1_700_000_000.0
DATE = b"Tue, 14 Nov 2023 22:13:20 +0000"
"""NOW, by `date -R -u -d @1700000000`."""
LIMIT = 300_000
PLAIN = base64.b64encode(b"\0anna@example.test\0secret")

RECEIVED = (
    b"Received: from client.example.net ([192.0.2.7])\r\n\tby mail.example.test with ESMTPSA id test1.1%s;\r\n\t"
    + DATE
    + b"\r\n"
)
"""The first field of what Anna submits, up to the clause for a single recipient."""
HEADER = b"From: Anna <anna@example.test>\r\nDate: " + DATE + b"\r\nMessage-ID: <1@example.test>\r\n"
MESSAGE = HEADER + b"\r\n..line\r\n...\r\nend\r\n"
"""As the client sends it."""
AS_SENT = HEADER + b"\r\n.line\r\n..\r\nend\r\n"
"""The same without dot-stuffing."""


def submission_trace(recipient: bytes, *, alone: bool = True) -> bytes:
    """What stands before a copy of Anna's first message of a session for a local recipient."""
    clause = b"\r\n\tfor <" + recipient + b">" if alone else b""
    return b"Return-Path: <anna@example.test>\r\nDelivered-To: " + recipient + b"\r\n" + RECEIVED % clause


def lmtp_trace(recipient: bytes, number: int = 1, sender: bytes = b"x@example.net", protocol: bytes = b"LMTP") -> bytes:
    """What stands before a message of another server."""
    return (
        b"Return-Path: <" + sender + b">\r\nDelivered-To: " + recipient + b"\r\n"
        b"Received: from mx.example.net ([192.0.2.7])\r\n\tby mail.example.test with "
        + protocol
        + b" id test1.%d\r\n\tfor <" % number
        + recipient
        + b">;\r\n\t"
        + DATE
        + b"\r\n"
    )


def begin(*recipients: bytes) -> bytes:
    """The commands before the message of another server, in one piece."""
    return b"MAIL FROM:<x@example.net>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % name for name in recipients)


class RecordingStore(MemoryStore):
    """Remembers what was staged and prepared, to see that nothing is left."""

    def __init__(self) -> None:
        super().__init__(lambda _data: EMPTY_SUMMARY)
        self.staged: list[MemoryStaged] = []
        self.prepared: list[MemoryPrepared] = []

    def account(self, user: str, home: str | None = None) -> MemoryAccount:
        is_new = user not in self._accounts
        account = super().account(user, home)
        if is_new:
            stage, prepare = account.stage, account.prepare
            account.stage = lambda: self._keep(self.staged, stage())  # type: ignore[method-assign]
            account.prepare = lambda name, messages, token="": self._keep(self.prepared, prepare(name, messages, token))  # type: ignore[method-assign]
        return account

    @staticmethod
    def _keep(kept: list[T], one: T) -> T:
        kept.append(one)
        return one


class World:
    """What the sessions of one test share."""

    def __init__(
        self,
        directory: Any,
        hop: FakeHop | None = None,
        *,
        lmtp: dict[str, Any] | None = None,
        submission: dict[str, Any] | None = None,
        store: Any = None,
    ) -> None:
        self.store = store or RecordingStore()
        self.accounts = LiveAccounts(self.store, DirectRunner)
        self.authenticator = FakeAuthenticator()
        self.directory = directory
        self.hop = hop
        common: dict[str, Any] = {
            "authenticator": self.authenticator,
            "accounts": self.accounts,
            "hostname": "mail.example.test",
            "mail": Mail(root=directory, max_message_size=Size(LIMIT)),
            "limits": Limits(),
            "spool": FileSpool(str(directory), DirectRunner),
            "clock": lambda: NOW,
        }
        self.submission = SubmissionServices(
            table=SUBMISSION,
            config=Submission(**submission or {}),
            mechanisms=Mechanisms(MECHANISMS),
            next_hop=hop,
            **common,
        )
        self.lmtp = LmtpServices(table=LMTP, config=Lmtp(**lmtp or {}), **common)

    def connect(self, facts: ConnectionInfo | None = None, **changes: bool) -> Client:
        """A connection for submission, within TLS unless said otherwise."""
        facts = facts or info("submissions")
        return Client(lambda channel: SubmissionSession(channel, self.submission), facts, **changes)

    def connect_lmtp(self, **changes: Any) -> Client:
        facts = info("lmtp", **{"starttls_offered": False, **changes})
        return Client(lambda channel: LmtpSession(channel, self.lmtp), facts)

    def log_in(self) -> Client:
        """After EHLO and AUTH, with nothing left to take."""
        client = self.connect()
        client.send(b"EHLO client.example.net\r\nAUTH PLAIN " + PLAIN + b"\r\n")
        assert client.take().endswith(b"235 2.7.0 logged in\r\n")
        return client

    def lhlo(self) -> Client:
        client = self.connect_lmtp()
        client.send(b"LHLO mx.example.net\r\n")
        assert b"\r\n250-mail.example.test\r\n" in client.take()
        return client

    def submit(
        self,
        message: bytes,
        *recipients: bytes,
        sender: bytes = b"anna@example.test",
    ) -> bytes:
        """The reply to a message of Anna's, for Bert unless said otherwise."""
        client = self.log_in()
        client.ask(b"MAIL FROM:<" + sender + b">\r\n")
        for recipient in recipients or (b"bert@example.org",):
            answer = client.ask(b"RCPT TO:<" + recipient + b">\r\n")
            assert answer.startswith(b"250"), answer
        assert client.ask(b"DATA\r\n").startswith(b"354")
        answer = client.ask(message + b".\r\n")
        client.hang_up()
        return answer

    def deliver(self, message: bytes) -> bytes:
        """The reply to a message for Anna, by LMTP."""
        client = self.lhlo()
        assert client.ask(begin(b"anna@example.test") + b"DATA\r\n").endswith(
            b"354 send the message, end it with a single dot\r\n"
        )
        return client.ask(message + b".\r\n")

    def kept(self, user: str = "anna@example.test", folder: str = "INBOX") -> list[bytes]:
        mailbox = self.store.account(user).mailbox(folder)
        return [mailbox.open_message(row.uid).read() for row in mailbox.load().rows]

    def left_behind(self) -> list[str]:
        """Claims of sessions that were not given back, messages neither kept nor given up, files that stayed."""
        held = [f"{live.account.user}: {live.users}" for live in self.accounts._accounts.values() if live.users]
        held += ["staged" for staged in self.store.staged if staged.data is not None]
        held += ["prepared" for one in self.store.prepared if one._appended is None and not one._aborted]
        return held + [path.name for path in self.directory.iterdir()]


class FakeHop:
    """A next hop (`mailserver.smtp.hop.NextHop`) and its connection: SMTP by lines, written for tests alone."""

    name = "smtp.example.net:587"
    timeout = 300.0

    def __init__(
        self,
        extensions: tuple[bytes, ...] = (b"8BITMIME", b"SIZE 1000000", b"AUTH PLAIN LOGIN"),
        *,
        starttls: bool = False,
        credentials: Credentials | None = None,
        replies: dict[bytes, bytes] | None = None,
        piece: int = 7,
    ) -> None:
        self.extensions = extensions
        self.starttls = starttls
        self.credentials = credentials
        self.replies = replies or {}
        """By the beginning of a command line (or "." for the end of data): the answer; b"" closes the connection."""
        self.piece = piece
        self.lines: list[bytes] = []
        self.written: list[bytes] = []
        """Each piece that it was given."""
        self.messages: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.rests = 0
        self.down = False
        self.tls = False
        self.on_end = lambda: None
        self._reset()

    def _reset(self) -> None:
        self._input = b""
        self._output = self.replies.get(b"greeting", b"220 hop\r\n")
        self._data: bytes | None = None
        self._lost = False
        self._dialogue = 0

    async def connect(self) -> FakeHop:
        if self.down:
            raise RelayDown
        self.connections += 1
        self._reset()
        return self

    async def read(self, timeout: float, *, goes_on: bool = False) -> bytes:
        assert timeout == self.timeout
        if not self._output:
            assert self._lost, f"the client waits for an answer that will not come: {self.lines}"
            raise RelayDown
        piece, self._output = self._output[: self.piece], self._output[self.piece :]
        return piece

    def write(self, data: bytes) -> None:
        if not self._lost:
            self.written.append(data)
            self._input += data
            self._work()

    async def drain(self) -> None:
        if self._lost and not self._output:
            raise RelayDown

    async def start_tls(self) -> None:
        self.tls = True

    @property
    def is_usable(self) -> bool:
        return not self._lost and not self._output

    def become_idle(self) -> None:
        self.rests += 1

    def close(self) -> None:
        self.closed += 1

    def abort(self) -> None:
        self.closed += 1

    def _work(self) -> None:
        while b"\r\n" in self._input and not self._lost:
            line, _, self._input = self._input.partition(b"\r\n")
            if self._data is None:
                self._command(line)
            elif line == b".":
                self.on_end()
                self.messages.append(self._data)
                self._data = None
                self._say(self.replies.get(b".", b"250 2.0.0 hop has it\r\n"))
            else:
                self._data += line.removeprefix(b".") + b"\r\n"

    def _command(self, line: bytes) -> None:
        self.lines.append(line)
        for beginning, answer in self.replies.items():
            if line.startswith(beginning):
                self._say(answer)
                break
        else:
            self._say(self._usual(line))

    def _usual(self, line: bytes) -> bytes:
        word = line.split(b" ")[0]
        if word == b"EHLO":
            keywords = [b"hop", *self.extensions]
            return b"".join(b"250-%s\r\n" % keyword for keyword in keywords[:-1]) + b"250 %s\r\n" % keywords[-1]
        if word == b"DATA":
            return b"354 go on\r\n"
        if line == b"AUTH LOGIN":
            self._dialogue = 1
            return b"334 VXNlcm5hbWU6\r\n"
        if self._dialogue == 1:
            self._dialogue = 2
            return b"334 UGFzc3dvcmQ6\r\n"
        if word == b"AUTH" or self._dialogue == 2:
            self._dialogue = 0
            return b"235 2.7.0 welcome\r\n"
        return {b"STARTTLS": b"220 go\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 2.1.0 hop says yes\r\n")

    def _say(self, answer: bytes) -> None:
        if not answer:
            self._lost = True
        elif answer.startswith(b"354"):
            self._data = b""
        self._output += answer
