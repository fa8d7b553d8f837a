"""Transactions with the next hop: drives an `RelayExchange` over a connection.

A submission session connects at its first message for the hop and keeps the connection for further messages, which a mail
program that empties its outbox sends soon. If the hop has closed the connection meanwhile, it has nothing of the new message
yet, and the session connects again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mailserver.errors import RelayDown, TooBig
from mailserver.sasl.mechanism import Credentials
from mailserver.session.lines import DotStuffer
from mailserver.smtp.address import Address
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.relay import CLOSING, EightBitRefused, RelayExchange, SMTPUTF8Refused, relay_reply
from mailserver.smtp.wire import Reply, reply_to


class HopConnection(Protocol):
    """A connection to the next hop, whose certificate is verified wherever TLS is used."""

    async def read(self, timeout: float, *, goes_on: bool = False) -> bytes:
        """The next bytes, never empty. `goes_on`: of a reply that has begun, whose time counts since its first read.

        Raises: RelayDown at the end, an error, or when the time has passed.
        """

    def write(self, data: bytes) -> None:
        """Queue bytes; they are sent in one piece, at the latest by the next `read`."""

    async def drain(self) -> None:
        """Wait until enough was taken. Raises: RelayDown."""

    async def start_tls(self) -> None:
        """Do the TLS handshake and verify the certificate. Raises: RelayDown."""

    @property
    def is_usable(self) -> bool:
        """Can a command be sent? Not if the hop has closed, or has sent something that was not asked for."""

    def become_idle(self) -> None:
        """Keep the connection for the next message; without one it sends QUIT after a while. A write ends the idle time."""

    def close(self) -> None:
        """Send the queued bytes and end the connection. Harmless when repeated."""

    def abort(self) -> None:
        """End the connection at once. Harmless when repeated."""


class NextHop(Protocol):
    """The server that mail for remote recipients is relayed to."""

    @property
    def name(self) -> str:
        """For the log: `smtp.example.net:587`."""

    @property
    def starttls(self) -> bool:
        """Must STARTTLS be used?"""

    @property
    def credentials(self) -> Credentials | None:
        """The credentials for AUTH, if any."""

    @property
    def timeout(self) -> float:
        """Seconds for each of its answers."""

    async def connect(self) -> HopConnection:
        """Connect; with implicit TLS also do the handshake. Raises: RelayDown."""


class HopSession:
    """One SMTP session with the hop, behind its greeting, STARTTLS and AUTH as configured; one message at a time."""

    def __init__(self, next_hop: NextHop, connection: HopConnection, hostname: str) -> None:
        self.exchange = RelayExchange(hostname, starttls=next_hop.starttls, credentials=next_hop.credentials)
        self.connection = connection
        self.down: RelayDown | None = None
        self._timeout = next_hop.timeout

    @classmethod
    async def begin(cls, next_hop: NextHop, hostname: str) -> HopSession:
        """Connect and log in. Raises: RelayDown."""
        session = cls(next_hop, await next_hop.connect(), hostname)
        try:
            await session.converse(session.exchange.open)
        except BaseException:
            session.connection.close()
            raise
        return session

    @property
    def unsolicited(self) -> bool:
        """Has the hop sent an unsolicited reply, or closed? Its next reply could be taken for that of another command."""
        return self.exchange.unsolicited or not self.connection.is_usable

    async def ask(self, start: Callable[[], None]) -> Reply:
        """Send a command and return its reply. Raises: RelayDown, from then on always."""
        if self.down is None and self.unsolicited:
            self.down = RelayDown("the next hop has closed the connection, or has sent an unsolicited reply")
        return await self.converse(start)

    async def converse(self, start: Callable[[], None]) -> Reply:
        """Run one step of the exchange, up to the hop's reply. Raises: RelayDown, from then on always."""
        if self.down is not None:
            raise self.down
        exchange, connection = self.exchange, self.connection
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
                    # A hop that sends octet by octet has no more time for a reply than another.
                    exchange.receive_data(await connection.read(self._timeout, goes_on=exchange.unsolicited))
        except RelayDown as error:
            self.down = error
            raise
        return exchange.outcome

    async def drain(self) -> None:
        """Wait until the hop has taken enough. Raises: RelayDown."""
        try:
            await self.connection.drain()
        except RelayDown as error:
            self.down = error
            raise

    def check_size(self, size: int | None) -> None:
        """Raises: TooBig for a message over the hop's limit."""
        limit = self.exchange.size_limit
        if size is not None and limit is not None and size > limit:
            raise TooBig(f"the next hop takes messages of at most {limit} octets")

    def close(self, *, in_data: bool = False) -> None:
        """End the session; with QUIT only where a command may stand: a message that breaks off is not delivered."""
        if self.down is None and not in_data and self.connection.is_usable:
            self.connection.write(b"QUIT\r\n")
        self.connection.close()


class HopTransaction:
    """The transaction of one message with the next hop."""

    def __init__(self, session: HopSession, *, utf8: bool = False) -> None:
        """`utf8`: the client has announced SMTPUTF8."""
        self.accepted = 0
        """Recipients that the hop has accepted."""
        self._session = session
        self._utf8 = utf8
        self._refused: Reply | None = None
        self._stuffer = DotStuffer()
        self._in_data = False
        self._done = False

    @classmethod
    async def begin(
        cls,
        next_hop: NextHop,
        hostname: str,
        sender: Address | None,
        recipient: Address,
        *,
        size: int | None,
        utf8: bool = False,
        kept: HopSession | None = None,
    ) -> tuple[HopTransaction, Reply]:
        """Send MAIL and the first RCPT, in the session that was kept from the last message or in a new one.

        Returns also the hop's reply for that recipient; if it refuses MAIL, that reply is the answer to each recipient.
        Raises: RelayDown; TooBig when the declared size is over the hop's limit; SMTPUTF8Refused if it cannot take the sender.
        """
        if kept is not None:
            hop = cls(kept, utf8=utf8)
            with suppress(RelayDown):
                mail, answer = await hop._begin(sender, size, recipient)
                if mail.code != CLOSING:
                    return hop, answer
                kept.close()
        hop = cls(await HopSession.begin(next_hop, hostname), utf8=utf8)
        return hop, (await hop._begin(sender, size, recipient))[1]

    async def _begin(self, sender: Address | None, size: int | None, recipient: Address) -> tuple[Reply, Reply]:
        """The hop's replies to MAIL and to the first RCPT, the latter as the client gets it."""
        session, exchange = self._session, self._session.exchange
        try:
            session.check_size(size)
            if sender is not None and not sender.is_ascii and not exchange.utf8:
                raise SMTPUTF8Refused  # noqa: TRY301 - ends the session like the failures of the hop
            at_once = exchange.pipelining and self._can_take(recipient)
            if at_once:
                answer = await self._mail_and_rcpt(sender, size, recipient)
                mail = exchange.mail_reply
                assert mail is not None
            else:
                mail = answer = await session.ask(lambda: exchange.mail(sender, size, utf8=self._utf8))
            if mail.code // 100 != 2:
                self._refused = answer = relay_reply(mail)
            elif at_once:
                answer = self._count(answer)
            else:
                answer = await self.add_recipient(recipient)
        except BaseException:
            session.close(in_data=True)
            raise
        return mail, answer

    async def _mail_and_rcpt(self, sender: Address | None, size: int | None, recipient: Address) -> Reply:
        session, exchange = self._session, self._session.exchange
        try:
            return await session.ask(lambda: exchange.mail_and_rcpt(sender, size, recipient, utf8=self._utf8))
        except RelayDown:
            # It may refuse MAIL and close, without a reply to RCPT.
            if exchange.mail_reply is None or exchange.mail_reply.code // 100 == 2:
                raise
            return exchange.mail_reply

    async def add_recipient(self, recipient: Address) -> Reply:
        """Send RCPT and return the hop's reply. Raises: RelayDown."""
        if self._refused is not None:
            return self._refused
        if not self._can_take(recipient):
            return reply_to(SMTPUTF8Refused())
        return self._count(await self._session.ask(lambda: self._session.exchange.rcpt(recipient)))

    def _can_take(self, recipient: Address) -> bool:
        return recipient.is_ascii or self._session.exchange.utf8

    def _count(self, answer: Reply) -> Reply:
        reply = relay_reply(answer)
        if reply.code // 100 == 2:
            self.accepted += 1
        return reply

    async def send(self, prefix: bytes, incoming: Incoming) -> Reply | None:
        """Send the message but for its end; a reply is the hop's refusal.

        Raises: RelayDown, StoreUnavailable; TooBig, EightBitRefused, SMTPUTF8Refused for a message that the hop cannot take.
        """
        session = self._session
        if incoming.eight_bit and "8BITMIME" not in session.exchange.extensions:
            raise EightBitRefused
        if self._utf8 and not session.exchange.utf8 and (not prefix.isascii() or await incoming.has_utf8_header()):
            raise SMTPUTF8Refused
        session.check_size(incoming.size + len(prefix))
        reply = await session.ask(session.exchange.data)
        if reply.code // 100 == 2:
            # It has no message yet that it could have accepted.
            session.down = RelayDown("the next hop's answer to DATA is none")
            raise session.down
        if reply.code != 354:
            return relay_reply(reply)
        self._in_data = True
        session.connection.write(self._stuffer.stuff(prefix))
        async for piece in incoming.pieces():
            session.connection.write(self._stuffer.stuff(piece))
            await session.drain()
        return None

    async def finish(self) -> Reply:
        """Send the final dot and return the hop's reply. Raises: RelayDown; it is then unknown whether the hop has the message."""
        session = self._session
        if session.unsolicited:
            # The hop has refused the message before its end, and does not get the end: nothing is delivered.
            return relay_reply(await session.converse(session.exchange.early_reply))
        reply = await session.converse(lambda: session.exchange.end_of_data(self._stuffer.finish()))
        self._in_data = False
        self._done = reply.code != CLOSING
        return relay_reply(reply)

    def close(self) -> HopSession | None:
        """End the transaction. Returns the session if it can carry another message: the caller must then close it."""
        session = self._session
        if self._done and session.down is None and session.connection.is_usable:
            session.connection.become_idle()
            return session
        session.close(in_data=self._in_data)
        return None
