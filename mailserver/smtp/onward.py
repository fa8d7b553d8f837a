"""The SMTP client for mail of the queue, without I/O: a relay or a host of the recipient's domain.

Beside what `RelayExchange` does for a session that waits: TLS where the hop offers it, HELO for a hop that has no EHLO,
the parameters of delivery reports (RFC 3461), all recipients in one piece, and the command that each failure belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from attrs import frozen

from mailserver.errors import RelayDown
from mailserver.queue.outcome import Stage
from mailserver.sasl.mechanism import Credentials
from mailserver.smtp.address import Address
from mailserver.smtp.relay import CLOSING, Conversation, HopRefusal, RelayExchange, StartTLS, require
from mailserver.smtp.wire import Reply

TLSUse = Literal["never", "offered", "required"]
"""STARTTLS: never, where the hop offers it (RFC 7435), or else no message."""

WITHOUT_EHLO: Final = frozenset({500, 501, 502, 504, 550})
"""Replies of a hop that does not know EHLO (RFC 5321 3.2)."""


@frozen
class OnwardRecipient:
    """A recipient in one transaction. The texts of a report's parameters are as they were received."""

    address: Address
    notify: str = ""
    orcpt: str = ""


class LoopsBack(RelayDown):
    """The hop greets with our own name (RFC 3463 X.4.6)."""

    smtp_reply = (554, "5.4.6")
    text = "the next hop is this server"


class OnwardExchange(RelayExchange):
    """One conversation of the queue with a hop."""

    def __init__(
        self, hostname: str, *, tls: TLSUse, credentials: Credentials | None = None, found_by_mx: bool = False
    ) -> None:
        """`found_by_mx`: the DNS named the hop, which is then never this server. A configured one may share its name."""
        super().__init__(hostname, starttls=tls == "required", credentials=credentials)
        self.stage: Stage = "greeting"
        """The command whose reply is waited for, or came last."""
        self.recipient_replies: list[Reply] = []
        """The replies to RCPT of this transaction, in their order; fewer if the hop closes."""
        self._tls_use = tls
        self._found_by_mx = found_by_mx

    @property
    def dsn(self) -> bool:
        """Does the hop offer DSN (RFC 3461)?"""
        return "DSN" in self.extensions

    def envelope(
        self,
        sender: Address | None,
        recipients: Sequence[OnwardRecipient],
        *,
        size: int,
        utf8: bool = False,
        ret: str = "",
        envid: str = "",
    ) -> None:
        """MAIL and RCPT of all recipients; in one piece for a hop that offers PIPELINING (RFC 2920).

        The outcome is the last reply; `mail_reply` and `recipient_replies` have all. `ret`, `envid`: RFC 3461 4.3, 4.4.
        """
        mail = self._mail_line(sender, size, utf8)
        if self.dsn:
            mail += (f" RET={ret}" if ret else "") + (f" ENVID={envid}" if envid else "")
        self.mail_reply, self.recipient_replies = None, []
        self._start(self._envelope(mail, [self._rcpt_line(each) for each in recipients]))

    def reset(self) -> None:
        """RSET: the transaction is dropped, the session goes on."""
        self._start(self._ask("RSET"))

    def data(self) -> None:
        """See RelayExchange."""
        self.stage = "data"
        super().data()

    def end_of_data(self, end: bytes) -> None:
        """See RelayExchange."""
        self.stage = "message"
        super().end_of_data(end)

    def _rcpt_line(self, recipient: OnwardRecipient) -> str:
        words = [f"RCPT TO:<{recipient.address}>"]
        if self.dsn and recipient.notify:
            words.append(f"NOTIFY={recipient.notify}")
        if self.dsn and recipient.orcpt:
            words.append(f"ORCPT={recipient.orcpt}")
        return " ".join(words)

    def _envelope(self, mail: str, recipients: Sequence[str]) -> Conversation:
        self.stage = "mail"
        lines = [mail, *recipients] if self.pipelining else [mail]
        answer = self.mail_reply = yield from self._ask("\r\n".join(lines))
        if answer.code == CLOSING or (answer.code // 100 != 2 and not self.pipelining):
            return answer
        if answer.code // 100 == 2:
            self.stage = "rcpt"
        for line in recipients:
            reply = yield from (self._wait() if self.pipelining else self._ask(line))
            if answer.code // 100 == 2:
                self.recipient_replies.append(reply)
            if reply.code == CLOSING:
                return reply
        return answer

    def _open(self) -> Conversation:
        self.stage = "greeting"
        greeting = yield b""
        require(greeting, 220, "the hop does not greet")
        self._check_name(greeting)
        self.stage = "ehlo"
        hello = yield from self._say_hello()
        self._check_name(hello)
        if self._tls_use == "required" and "STARTTLS" not in self.extensions:
            raise RelayDown("the hop offers no STARTTLS")
        if self._tls_use != "never" and "STARTTLS" in self.extensions:
            hello = yield from self._secure_if_possible(hello)
        if self._credentials is not None:
            self.stage = "auth"
            return (yield from self._log_in(self._credentials))
        return hello

    def _say_hello(self) -> Conversation:
        hello = yield from self._ask(f"EHLO {self._hostname}")
        if hello.code in WITHOUT_EHLO and self._tls_use != "required":
            hello = yield from self._ask(f"HELO {self._hostname}")
            require(hello, 250, "the hop refuses HELO")
            return hello
        self._read_extensions(hello)
        return hello

    def _secure_if_possible(self, hello: Reply) -> Conversation:
        self.stage = "starttls"
        answer = yield from self._ask("STARTTLS")
        if answer.code == 220:
            hello = yield StartTLS()
            self.stage = "ehlo"
            self._read_extensions(hello)
        elif self._tls_use == "required" or answer.code == CLOSING:
            raise HopRefusal("the hop refuses STARTTLS", answer)
        # A hop that offers TLS and cannot do it now still gets mail that may go in clear text.
        return hello

    def _check_name(self, reply: Reply) -> None:
        """Raises: LoopsBack if the hop has our own name (RFC 5321 4.2: it stands first)."""
        if not self._found_by_mx:
            return
        name = reply.lines[0].partition(" ")[0].rstrip(".").lower() if reply.lines else ""
        if name == self._hostname.lower():
            raise LoopsBack
