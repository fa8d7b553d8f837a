"""One message of the queue to some recipients of one hop, with an outcome for each.

Nothing raises because of the hop: whatever it does, or does not do, is an outcome. A message that was sent whole and not
answered may have arrived, and is tried again all the same (RFC 5321 4.5.4.1, RFC 1047).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from attrs import evolve, frozen

from mailserver.errors import RelayDown
from mailserver.queue.outcome import Outcome, Stage, outcome_of_reply, outcome_of_silence, refused_here
from mailserver.session.lines import DotStuffer
from mailserver.smtp.address import Address
from mailserver.smtp.hop import HopConnection
from mailserver.smtp.onward import LoopsBack, OnwardExchange, OnwardRecipient
from mailserver.smtp.relay import CLOSING, HopRefusal
from mailserver.smtp.wire import Reply

MOST_RECIPIENTS: Final = 100
"""Of one transaction: as many as every server takes (RFC 5321 4.5.3.1.8)."""
TIMES: Final[dict[Stage, float]] = {"data": 120.0, "message": 600.0}
"""Seconds for a reply (RFC 5321 4.5.3.2); for others ANSWER_TIME."""
ANSWER_TIME: Final = 300.0


@frozen
class OutgoingMessage:
    """What is sent: the envelope without recipients, and the octets."""

    sender: Address | None
    size: int
    pieces: Callable[[], AsyncIterator[bytes]]
    """The message from its first octet on, each time it is called; line ends are CRLF."""
    eight_bit: bool = False
    utf8: bool = False
    """It needs SMTPUTF8 (RFC 6531)."""
    ret: str = ""
    envid: str = ""


class OnwardSession:
    """A session of the queue with a hop: opened once, then one message after another."""

    def __init__(self, exchange: OnwardExchange, connection: HopConnection, hop: str) -> None:
        """`hop`: its name for logs and reports, such as `mx.example.net[192.0.2.1]`."""
        self._exchange = exchange
        self._connection = connection
        self.hop = hop
        self.messages = 0
        """Messages that it has begun to carry."""
        self.failure: Outcome | None = None
        """Why the session carries no further message."""

    @property
    def is_usable(self) -> bool:
        """Can it carry another message?"""
        return self.failure is None and not self._exchange.unsolicited and self._connection.is_usable

    async def open(self) -> Outcome | None:
        """Greeting, EHLO, TLS, AUTH. Return the failure, if there is one: the session is then closed."""
        await self._converse(self._exchange.open)
        return self.failure

    async def send(self, message: OutgoingMessage, recipients: Sequence[OnwardRecipient]) -> list[Outcome]:
        """Send a message to at most MOST_RECIPIENTS recipients, and return their outcomes in their order."""
        if not self.is_usable:
            return [self._cut("connect", "the hop has closed the connection")] * len(recipients)
        refusal = self._cannot_take(message)
        if refusal is not None:
            return [refusal] * len(recipients)
        self.messages += 1
        outcomes: list[Outcome | None] = [None] * len(recipients)
        await self._send(message, recipients, outcomes)
        found = []
        for each in outcomes:
            outcome = each or self.failure
            assert outcome is not None
            found.append(outcome)
        return found

    def close(self) -> None:
        """End the session; with QUIT where a command may stand."""
        if self.is_usable:
            self._connection.write(b"QUIT\r\n")
        if self.failure is None:
            self.failure = self._cut("connect", "the session has ended")
        self._connection.close()

    def abort(self) -> None:
        """End the session at once, wherever it stands: a message that breaks off is not accepted."""
        if self.failure is None:
            self.failure = self._cut("connect", "the session has ended")
        self._connection.abort()

    def become_idle(self) -> None:
        """Keep the connection for the next message for a while."""
        self._connection.become_idle()

    def _cannot_take(self, message: OutgoingMessage) -> Outcome | None:
        """A refusal of ours: the hop does not offer what the message needs."""
        exchange = self._exchange
        if message.utf8 and not exchange.utf8:
            return refused_here("5.6.7", "the hop takes no addresses or header fields beyond ASCII", self.hop)
        if message.eight_bit and "8BITMIME" not in exchange.extensions:
            return refused_here("5.6.3", "the hop takes no 8-bit text", self.hop)
        if exchange.size_limit is not None and message.size > exchange.size_limit:
            return refused_here("5.3.4", f"the hop takes messages of at most {exchange.size_limit} octets", self.hop)
        return None

    async def _send(
        self, message: OutgoingMessage, recipients: Sequence[OnwardRecipient], outcomes: list[Outcome | None]
    ) -> None:
        """Fill in the outcomes; those that stay None are what `failure` says."""
        exchange = self._exchange
        await self._converse(
            lambda: exchange.envelope(
                message.sender,
                recipients,
                size=message.size,
                utf8=message.utf8,
                ret=message.ret,
                envid=message.envid,
            )
        )
        mail = exchange.mail_reply
        if mail is not None and mail.code // 100 != 2:
            outcomes[:] = [self._outcome("mail", mail)] * len(recipients)
            self._end_if_closing(mail)
            return
        replies = exchange.recipient_replies
        accepted = [at for at, reply in enumerate(replies) if reply.code // 100 == 2]
        for at, reply in enumerate(replies):
            if reply.code // 100 != 2:
                outcomes[at] = self._outcome("rcpt", reply, others_accepted=bool(accepted))
                self._end_if_closing(reply)
        if self.failure is not None:
            return
        if not accepted:
            await self._converse(exchange.reset)
            return
        outcome = await self._send_data(message)
        for at in accepted:
            outcomes[at] = outcome

    async def _send_data(self, message: OutgoingMessage) -> Outcome | None:
        """The outcome for the accepted recipients, None if it is the failure of the session."""
        exchange, connection = self._exchange, self._connection
        reply = await self._converse(exchange.data)
        if reply is None:
            return None
        if reply.code != 354:
            outcome = self._outcome("data", reply)
            if reply.code // 100 in {2, 3}:
                # The hop is out of step: a reply that it owes could be taken for that of the next message.
                self._fail(self._cut("data", "the hop's answer to DATA is none"))
            else:
                self._end_if_closing(reply)
            return outcome
        stuffer = DotStuffer()
        try:
            async for piece in message.pieces():
                connection.write(stuffer.stuff(piece))
                await connection.drain()
        except RelayDown as error:
            self._fail(self._cut("data", error.reason))
            return None
        except BaseException:
            # The message breaks off, and the hop must not take it for a whole one: no final dot, no QUIT.
            self._fail(self._cut("data", "the message cannot be read"))
            raise
        if exchange.unsolicited or not connection.is_usable:
            early = await self._converse(exchange.early_reply)
            self._fail(self._cut("data", "the hop has answered before the end of the message"))
            return None if early is None else self._outcome("data", early)
        reply = await self._converse(lambda: exchange.end_of_data(stuffer.finish()))
        if reply is None:
            return None
        outcome = self._outcome("message", reply)
        self._end_if_closing(reply)
        return outcome

    def _outcome(self, stage: Stage, reply: Reply, *, others_accepted: bool = False) -> Outcome:
        lines = list(reply.lines)
        if reply.enhanced and lines:
            lines[0] = f"{reply.enhanced} {lines[0]}"
        return outcome_of_reply(
            stage,
            reply.code,
            lines,
            hop=self.hop,
            dsn_offered=self._exchange.dsn,
            others_accepted=others_accepted,
        )

    def _cut(self, stage: Stage, reason: str) -> Outcome:
        return outcome_of_silence(stage, reason, hop=self.hop)

    def _end_if_closing(self, reply: Reply) -> None:
        if reply.code == CLOSING:
            self._fail(self._outcome("mail", reply))

    def _fail(self, outcome: Outcome) -> None:
        """End the session in mid-air: nothing that the hop has now is whole."""
        if self.failure is None:
            self.failure = outcome
            self._connection.close()

    async def _converse(self, start: Callable[[], None]) -> Reply | None:
        """Run one step of the exchange. Return None if the session has failed."""
        exchange, connection = self._exchange, self._connection
        try:
            start()
            while exchange.outcome is None:
                if output := exchange.next_bytes():
                    connection.write(output)
                    await connection.drain()
                if exchange.tls_due:
                    await connection.start_tls()
                    exchange.tls_started()
                else:
                    seconds = TIMES.get(exchange.stage, ANSWER_TIME)
                    exchange.receive_data(await connection.read(seconds, goes_on=exchange.unsolicited))
        except HopRefusal as refusal:
            self._fail(self._outcome(exchange.stage, refusal.reply))
        except LoopsBack as error:
            self._fail(evolve(refused_here(error.smtp_reply[1], error.reason, self.hop), stage=exchange.stage))
        except RelayDown as error:
            self._fail(self._cut(exchange.stage, error.reason))
        return None if self.failure is not None else exchange.outcome
