"""Driving an `Exchange` over a connection to the next hop: one connection for each transaction that needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mailserver.errors import RelayDown, TooBig
from mailserver.lines import DotStuffer
from mailserver.sasl.mechanism import Credentials
from mailserver.smtp.address import Address
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.relay import EightBitRefused, Exchange, pass_on
from mailserver.smtp.wire import Reply


class HopConnection(Protocol):
    """A connection to the next hop, whose certificate is verified wherever TLS is used."""

    async def read(self, timeout: float) -> bytes:
        """The next bytes, never empty. Raises: RelayDown at the end, an error, or when the time has passed."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    async def drain(self) -> None:
        """Wait until enough was taken. Raises: RelayDown."""

    async def start_tls(self) -> None:
        """Shake hands and verify. Raises: RelayDown."""

    def close(self) -> None:
        """Send what is queued and end the connection. Harmless when repeated."""


class NextHop(Protocol):
    """Where mail for others is handed to."""

    @property
    def name(self) -> str:
        """For the log: `smtp.example.net:587`."""

    @property
    def starttls(self) -> bool:
        """Must STARTTLS be used?"""

    @property
    def credentials(self) -> Credentials | None:
        """What to log in with."""

    @property
    def timeout(self) -> float:
        """Seconds for each of its answers."""

    async def connect(self) -> HopConnection:
        """Dial; with implicit TLS the handshake is done. Raises: RelayDown."""


class HopTransaction:
    """One message on its way to the next hop."""

    def __init__(self, next_hop: NextHop, connection: HopConnection, hostname: str) -> None:
        self.accepted = 0
        """Recipients that the hop has accepted."""
        self._next_hop = next_hop
        self._connection = connection
        self._exchange = Exchange(hostname, starttls=next_hop.starttls, credentials=next_hop.credentials)
        self._down: RelayDown | None = None
        self._refused: Reply | None = None
        self._stuffer = DotStuffer()
        self._in_data = False

    @classmethod
    async def begin(cls, next_hop: NextHop, hostname: str, sender: Address | None, size: int | None) -> HopTransaction:
        """Dial, log in, MAIL. If the hop refuses MAIL, that is its answer to each recipient.

        Raises: RelayDown; TooBig when the declared size is over the hop's limit.
        """
        hop = cls(next_hop, await next_hop.connect(), hostname)
        try:
            await hop._converse(hop._exchange.open)
            hop._check_size(size)
            reply = await hop._converse(lambda: hop._exchange.mail(sender, size))
        except BaseException:
            hop._connection.close()
            raise
        if reply.code // 100 != 2:
            hop._refused = pass_on(reply)
        return hop

    async def add_recipient(self, recipient: Address) -> Reply:
        """RCPT; the hop's own reply. Raises: RelayDown."""
        if self._refused is not None:
            return self._refused
        reply = pass_on(await self._converse(lambda: self._exchange.rcpt(recipient)))
        if reply.code // 100 == 2:
            self.accepted += 1
        return reply

    async def send(self, prefix: bytes, incoming: Incoming) -> Reply | None:
        """The message but for its end; a reply is the hop's refusal.

        Raises: RelayDown, StoreUnavailable; TooBig, EightBitRefused for a message that the hop cannot take.
        """
        if incoming.eight_bit and "8BITMIME" not in self._exchange.extensions:
            raise EightBitRefused
        self._check_size(incoming.size + len(prefix))
        reply = await self._converse(self._exchange.data)
        if reply.code != 354:
            return pass_on(reply)
        self._in_data = True
        self._connection.write(self._stuffer.stuff(prefix))
        async for piece in incoming.pieces():
            self._connection.write(self._stuffer.stuff(piece))
            await self._drain()
        return None

    async def finish(self) -> Reply:
        """The final dot and the hop's reply. Raises: RelayDown; whether the hop has the message is then unknown."""
        reply = await self._converse(lambda: self._exchange.end_of_data(self._stuffer.finish()))
        self._in_data = False
        return pass_on(reply)

    def close(self) -> None:
        """End the connection; with QUIT only where a command may stand: what breaks off is not delivered."""
        if self._down is None and not self._in_data:
            self._connection.write(b"QUIT\r\n")
        self._connection.close()

    def _check_size(self, size: int | None) -> None:
        limit = self._exchange.size_limit
        if size is not None and limit is not None and size > limit:
            raise TooBig(f"the next hop takes messages of at most {limit} octets")

    async def _converse(self, start: Callable[[], None]) -> Reply:
        if self._down is not None:
            raise self._down
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
                    exchange.receive_data(await connection.read(self._next_hop.timeout))
        except RelayDown as error:
            self._down = error
            raise
        return exchange.outcome

    async def _drain(self) -> None:
        try:
            await self._connection.drain()
        except RelayDown as error:
            self._down = error
            raise
