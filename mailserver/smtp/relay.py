"""The SMTP client for the next hop, without I/O (RFC 5321, RFC 3207, RFC 4954).

The caller starts a step of an `RelayExchange` (`open`, `mail`, `rcpt`, ...) and runs it until there is an `outcome`: it sends
`next_bytes`, does the TLS handshake when `tls_due` is set, and passes the hop's bytes to `receive_data`. Replies are bounded;
bytes that came before TLS never count as replies within it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Generator
from typing import ClassVar

from mailserver.errors import MailError, RelayDown, TooBig
from mailserver.sasl.mechanism import Credentials
from mailserver.smtp.address import Address
from mailserver.smtp.wire import Reply

MAX_REPLY_LINE = 4096
MAX_REPLY_LINES = 128
CLOSING = 421
"""The reply of a server that ends the session (RFC 5321 3.8)."""
MAX_TEXT = 400
"""Characters of a hop's line that the client gets."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


class EightBitRefused(TooBig):
    """The next hop takes no 8-bit text and the message has some (RFC 6152 3)."""

    smtp_reply: ClassVar[tuple[int, str]] = (554, "5.6.3")
    text = "the next hop does not take messages with 8-bit text"


class SMTPUTF8Refused(MailError):
    """The next hop has no SMTPUTF8, and the message needs it (RFC 6531 3.2; RFC 6531 4.1 has the code)."""

    smtp_reply: ClassVar[tuple[int, str]] = (550, "5.6.7")
    text = "the next hop does not take addresses or header fields beyond ASCII"


class HopRefusal(RelayDown):
    """The hop refuses what must be before a message can be sent; `reply` is its own."""

    def __init__(self, text: str, reply: Reply) -> None:
        super().__init__(f"{text} (reply {reply.code})")
        self.reply = reply


class ReplyReader:
    """Cuts the hop's bytes into replies (RFC 5321 4.2.1)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._code = 0

    @property
    def pending(self) -> bool:
        """Is there a byte that belongs to no finished reply?"""
        return bool(self._buffer or self._lines)

    def receive_data(self, data: bytes) -> None:
        """Add bytes of the hop."""
        self._buffer += data

    def next_reply(self) -> Reply | None:
        """The next reply, None if more bytes are needed. Raises: RelayDown for bytes that are no SMTP, or exceed a limit."""
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            found = _LINE.fullmatch(line)
            if found is None or end > MAX_REPLY_LINE or len(self._lines) >= MAX_REPLY_LINES:
                raise RelayDown("the next hop's reply is not SMTP")
            code = int(found[1])
            if self._lines and code != self._code:
                raise RelayDown("the next hop's reply is not SMTP")
            self._code = code
            self._lines.append(_printable(found[3] or b""))
            if found[2] != b"-":
                lines, self._lines = self._lines, []
                return _reply(code, lines)
        if len(self._buffer) > MAX_REPLY_LINE:
            raise RelayDown("the next hop's reply has a line without end")
        return None


def _printable(text: bytes) -> str:
    if text.isascii() and (plain := text.decode("ascii")).isprintable():
        return plain
    return "".join(character if " " <= character <= "~" else "?" for character in text.decode("ascii", "replace"))


def _reply(code: int, lines: list[str]) -> Reply:
    enhanced = None
    texts = []
    for line in lines:
        status = _ENHANCED.match(line)
        if status and status[1][0] == str(code)[0]:
            enhanced = enhanced or status[1]
            texts.append(line[status.end() :])
        else:
            texts.append(line)
    return Reply(code, enhanced, tuple(texts))


def relay_reply(reply: Reply) -> Reply:
    """The hop's reply as our client gets it: 421 would mean that we close, and 3xx is no final answer."""
    code = 451 if reply.code == CLOSING or reply.code // 100 == 3 else reply.code
    enhanced = reply.enhanced or f"{code // 100}.0.0"
    if enhanced[0] != str(code)[0]:
        enhanced = f"{code // 100}.0.0"
    return Reply(code, enhanced, tuple(line[:MAX_TEXT] for line in reply.lines))


class StartTLS:
    """The value that a conversation yields when TLS must start now."""


Conversation = Generator[bytes | StartTLS, Reply, Reply]


class RelayExchange:
    """One conversation with the hop. Every method that starts a step needs the last one's `outcome`."""

    def __init__(self, hostname: str, *, starttls: bool, credentials: Credentials | None) -> None:
        self.extensions: dict[str, str] = {}
        """The hop's extensions: keyword, upper case -> parameters."""
        self.outcome: Reply | None = None
        """The hop's reply to the step, once it is there."""
        self.tls_due = False
        """Do the handshake now, then call `tls_started`."""
        self.mail_reply: Reply | None = None
        """The hop's reply to MAIL, where that was sent with the first RCPT."""
        self._hostname = hostname
        self._starttls = starttls
        self._credentials = credentials
        self._reader = ReplyReader()
        self._output = bytearray()
        self._conversation: Conversation | None = None

    def next_bytes(self) -> bytes:
        """The bytes to send now; empty if it is the hop's turn."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def receive_data(self, data: bytes) -> None:
        """Add bytes of the hop. Raises: RelayDown when the hop refuses what must be, or does not speak SMTP."""
        self._reader.receive_data(data)
        while self.outcome is None and not self.tls_due and (reply := self._reader.next_reply()) is not None:
            self._advance(reply)
        if self.tls_due and self._reader.pending:
            raise RelayDown("the next hop sent data between its reply to STARTTLS and the TLS handshake")

    def tls_started(self) -> None:
        """The handshake is done."""
        self.tls_due = False
        self.extensions = {}
        self._queue(f"EHLO {self._hostname}")

    def open(self) -> None:
        """Greeting, EHLO, STARTTLS, AUTH. The outcome is positive; any other reply raises RelayDown."""
        self._start(self._open())

    def mail(self, sender: Address | None, size: int | None, *, utf8: bool = False) -> None:
        """MAIL, with SIZE (RFC 1870) and BODY=8BITMIME (RFC 6152) where they are offered, with `utf8` SMTPUTF8 (RFC 6531), too."""
        self._start(self._ask(self._mail_line(sender, size, utf8)))

    def mail_and_rcpt(
        self, sender: Address | None, size: int | None, recipient: Address, *, utf8: bool = False
    ) -> None:
        """MAIL and the first RCPT in one piece, for a hop that offers PIPELINING (RFC 2920).

        The outcome is the reply to RCPT, or that to MAIL if it is negative; `mail_reply` is that to MAIL.
        """
        self.mail_reply = None
        self._start(self._mail_and_rcpt(f"{self._mail_line(sender, size, utf8)}\r\nRCPT TO:<{recipient}>"))

    @property
    def pipelining(self) -> bool:
        """Does the hop accept pipelined commands (RFC 2920)?"""
        return "PIPELINING" in self.extensions

    @property
    def utf8(self) -> bool:
        """Does the hop offer SMTPUTF8 (RFC 6531)?"""
        return "SMTPUTF8" in self.extensions

    def _mail_line(self, sender: Address | None, size: int | None, utf8: bool) -> str:
        words = [f"MAIL FROM:<{sender or ''}>"]
        if size is not None and "SIZE" in self.extensions:
            words.append(f"SIZE={size}")
        if "8BITMIME" in self.extensions:
            words.append("BODY=8BITMIME")
        if utf8 and self.utf8:
            words.append("SMTPUTF8")
        return " ".join(words)

    def rcpt(self, recipient: Address) -> None:
        """RCPT."""
        self._start(self._ask(f"RCPT TO:<{recipient}>"))

    def data(self) -> None:
        """DATA: after a 354 the driver sends the message, dot-stuffed, but for its end."""
        self._start(self._ask("DATA"))

    def end_of_data(self, end: bytes) -> None:
        """The last bytes of DATA, its final dot among them."""
        self._output += end
        self._start(self._wait())

    def early_reply(self) -> None:
        """The hop's reply before the end of DATA. The outcome is a refusal; any other reply raises RelayDown."""
        self._start(self._refusal())

    @property
    def unsolicited(self) -> bool:
        """Has the hop sent an unsolicited reply?"""
        return self._reader.pending

    @property
    def size_limit(self) -> int | None:
        """The largest message that the hop accepts, None if it is not known (RFC 1870 4)."""
        value = self.extensions.get("SIZE", "")
        return int(value) or None if re.fullmatch("[0-9]{1,20}", value) else None

    def _start(self, conversation: Conversation) -> None:
        self.outcome = None
        self._conversation = conversation
        step = next(conversation)
        assert isinstance(step, bytes)
        self._output += step
        if self._reader.pending:
            self.receive_data(b"")

    def _advance(self, reply: Reply) -> None:
        assert self._conversation is not None
        try:
            step = self._conversation.send(reply)
        except StopIteration as stop:
            self.outcome = stop.value
            return
        if isinstance(step, StartTLS):
            self.tls_due = True
        else:
            self._output += step

    def _queue(self, line: str) -> None:
        self._output += line.encode("ascii") + b"\r\n"

    def _ask(self, line: str) -> Conversation:
        return (yield line.encode("utf-8") + b"\r\n")

    def _mail_and_rcpt(self, lines: str) -> Conversation:
        answer = self.mail_reply = yield from self._ask(lines)
        if answer.code // 100 == 2:
            return (yield from self._wait())
        if answer.code != CLOSING:
            yield from self._wait()  # without a sender it is no success, whatever it says
        return answer

    def _wait(self) -> Conversation:
        return (yield b"")

    def _refusal(self) -> Conversation:
        reply = yield b""
        if reply.code // 100 in {2, 3}:
            raise RelayDown("the next hop accepted a message before its end")
        return reply

    def _open(self) -> Conversation:
        greeting = yield b""
        require(greeting, 220, "the next hop does not greet")
        hello = yield from self._say_hello()
        if self._starttls:
            if "STARTTLS" not in self.extensions:
                raise RelayDown("the next hop offers no STARTTLS")
            hello = yield from self._secure()
        if self._credentials is not None:
            return (yield from self._log_in(self._credentials))
        return hello

    def _say_hello(self) -> Conversation:
        hello = yield from self._ask(f"EHLO {self._hostname}")
        self._read_extensions(hello)
        return hello

    def _secure(self) -> Conversation:
        """STARTTLS, the handshake, and the reply to the EHLO behind it."""
        require((yield from self._ask("STARTTLS")), 220, "the next hop refuses STARTTLS")
        hello = yield StartTLS()
        self._read_extensions(hello)
        return hello

    def _read_extensions(self, hello: Reply) -> None:
        require(hello, 250, "the next hop refuses EHLO")
        for line in hello.lines[1:]:
            keyword, _, parameters = line.partition(" ")
            self.extensions[keyword.upper()] = parameters

    def _log_in(self, credentials: Credentials) -> Conversation:
        offered = self.extensions.get("AUTH", "").upper().split()
        name, password = credentials.name.encode("utf-8"), credentials.password.reveal()
        if "PLAIN" in offered:
            message = b"\0" + name + b"\0" + password
            answer = yield from self._ask(f"AUTH PLAIN {_base64(message)}")
        elif "LOGIN" in offered:
            require((yield from self._ask("AUTH LOGIN")), 334, "the next hop refuses AUTH")
            require((yield from self._ask(_base64(name))), 334, "the next hop refuses AUTH")
            answer = yield from self._ask(_base64(password))
        else:
            raise RelayDown("the next hop offers no AUTH mechanism that is supported here")
        require(answer, 235, "the next hop refuses our login")
        return answer


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def require(reply: Reply, code: int, sentence: str) -> None:
    """Raises: HopRefusal for another code."""
    if reply.code != code:
        raise HopRefusal(sentence, reply)
