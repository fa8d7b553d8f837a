"""The input of a session: lines, literals and continuations, each with its limits and deadlines.

A command is read whole before it runs, but for a literal that its row streams: that one stays announced, and `run`
accepts it, piece by piece, or leaves it. Deadlines: long before a line's first octet (login time, autologout), short
from then on; a streamed literal has to make progress, so that a client that drips is disconnected (`TimedOut`).
"""

from __future__ import annotations

import re

from mailserver.config.model import Imap, Limits
from mailserver.errors import BadSyntax, TooBig
from mailserver.imap.command import CommandSpec
from mailserver.imap.wire.framer import (
    NEED_DATA,
    Event,
    Framer,
    Line,
    LineRefused,
    LiteralAnnounced,
    LiteralData,
)
from mailserver.session.channel import Channel, Wake

LINE_BEFORE_LOGIN = 32 * 1024
"""Octets: the largest ID (RFC 2971 3.3), 30 fields of 1024, has 31,807."""
LITERALS_BEFORE_LOGIN = 4096
SWALLOW_BEFORE_LOGIN = 64 * 1024
SWALLOW_AFTER_LOGIN = 1024 * 1024
PROGRESS = 16 * 1024
"""Octets of a message, taken or discarded, that must come within each transfer time-out."""
LITERAL_UNASKED = 1024
"""Octets of a name or password in a refused login that are read."""
LITERAL_MINUS = 4096
"""Largest non-synchronizing literal under LITERAL- (RFC 7888 5)."""


class TimedOut(Exception):
    """The client was silent for too long, or drips."""


class Input:
    """The input of one session."""

    def __init__(self, channel: Channel, config: Imap, limits: Limits) -> None:
        self._channel = channel
        self._config = config
        self._limits = limits
        self._login_deadline: float | None = channel.now() + limits.login_time
        self._command_deadline = 0.0
        self._progress = 0
        self._announced: LiteralAnnounced | None = None
        self._framer = Framer(LINE_BEFORE_LOGIN, SWALLOW_BEFORE_LOGIN)

    def log_in(self) -> None:
        """Switch to the larger limits and longer deadlines of a client that has logged in."""
        self._login_deadline = None
        self._framer.max_line = self._config.max_line
        self._framer.swallow_limit = SWALLOW_AFTER_LOGIN

    def log_out(self) -> None:
        """Switch back to the limits and deadlines before the login. Octets that have come are kept."""
        self._login_deadline = self._channel.now() + self._limits.login_time
        self._framer.max_line = LINE_BEFORE_LOGIN
        self._framer.swallow_limit = SWALLOW_BEFORE_LOGIN

    def reset_for_tls(self) -> None:
        """Drop all octets from before TLS."""
        self._framer = Framer(LINE_BEFORE_LOGIN, SWALLOW_BEFORE_LOGIN)

    @property
    def buffered(self) -> bool:
        """Has the client sent octets behind the command that runs?"""
        return self._framer.buffered

    @property
    def announced(self) -> LiteralAnnounced | None:
        """The literal that waits for a streaming command's decision."""
        return self._announced

    def end_command(self) -> None:
        """Discard the rest of a command that has been answered. Raises: FramingLost."""
        self._announced = None
        self._framer.abandon_command()

    def peek_run(self, line: re.Pattern[bytes], run: re.Pattern[bytes]) -> list[tuple[bytes, ...]]:
        """See `Framer.peek_run`."""
        return self._framer.peek_run(line, run)

    def skip(self, octets: int) -> None:
        """See `Framer.skip`."""
        self._framer.skip(octets)

    # --- Whole commands

    def next_command(self) -> Line | LiteralAnnounced | LineRefused | None:
        """As `first_event` if the client has sent it already, else None. Raises: FramingLost."""
        if not self._framer.buffered:
            return None
        event = self._framer.next_event()
        if event is NEED_DATA:
            return None
        assert isinstance(event, Line | LiteralAnnounced | LineRefused)
        return event

    async def first_event(self) -> Line | LiteralAnnounced | LineRefused:
        """The first line of a command, or of its answer to a challenge. Raises: TimedOut, FramingLost."""
        framer, channel = self._framer, self._channel
        deadline = self._login_deadline
        if deadline is None:
            deadline = channel.now() + self._config.timeout
        begun = False
        while True:
            event = framer.next_event()
            if event is not NEED_DATA:
                assert isinstance(event, Line | LiteralAnnounced | LineRefused)
                return event
            if not begun and framer.within_command:
                begun = True
                self._start_transfer_timer()
                deadline = self._command_deadline
            data = await channel.read(max(0.0, deadline - channel.now()))
            if isinstance(data, Wake):
                raise TimedOut
            framer.receive_data(data)
            if begun and self._extend_deadline(len(data)):
                # The rest of a refused message is being discarded, and comes steadily.
                deadline = self._command_deadline

    async def event_or_poke(self, until: float) -> Line | LiteralAnnounced | LineRefused | None:
        """As `first_event`, or None between two commands: after a poke, or at that time. Raises: TimedOut, FramingLost."""
        event = self.next_command()
        if event is not None:
            return event
        if not self._framer.within_command:
            data = await self._channel.read(max(0.0, until - self._channel.now()), pokes=True)
            if isinstance(data, Wake):
                return None
            self._framer.receive_data(data)
        return await self.first_event()

    async def read_parts(self, spec: CommandSpec, event: Line | LiteralAnnounced) -> list[bytes]:
        """The whole command, but for a literal that it streams itself. Raises: BadSyntax, TooBig, TimedOut."""
        parts = [event.data]
        if isinstance(event, Line):
            return parts
        self._start_transfer_timer()
        budget = spec.max_literal
        if self._login_deadline is not None:
            budget = min(budget, LITERALS_BEFORE_LOGIN)
        while isinstance(event, LiteralAnnounced):
            self._announced = event
            self._check_announced(event)
            if spec.streams is not None and spec.streams(parts):
                return parts
            if event.literal8 and not spec.literal8:
                raise BadSyntax("no binary literal is allowed here")
            if event.size > budget:
                if spec.refuse_literal is not None:
                    raise spec.refuse_literal(self._config)
                raise TooBig("the literal is too large for this command")
            budget -= event.size
            self._accept()
            pieces = []
            while isinstance(piece := await self._event_in_command(), LiteralData):
                pieces.append(piece.data)
            event = await self._line_in_command()
            parts += (b"".join(pieces), event.data)
            # Thousands of tiny literals fit into one line: others have their turn between them.
            await self._channel.drain()
        return parts

    async def read_unrequested(self, event: Line | LiteralAnnounced) -> list[bytes]:
        """The rest of a refused command, as far as it comes without being asked for, and no more than a login needs.

        Raises: BadSyntax where it is more, or does not; TimedOut. What is left is discarded at the command's end.
        """
        parts = [event.data]
        if isinstance(event, LiteralAnnounced):
            self._start_transfer_timer()
        while isinstance(event, LiteralAnnounced):
            if not event.non_sync or event.literal8 or event.size > LITERAL_UNASKED or len(parts) > 4:
                raise BadSyntax
            self._framer.accept_literal()
            pieces = []
            while isinstance(piece := await self._event_in_command(), LiteralData):
                pieces.append(piece.data)
            event = await self._line_in_command()
            parts += (b"".join(pieces), event.data)
        return parts

    # --- Streamed literals

    def accept_literal(self) -> None:
        """Take the announced literal; ask for it if the client waits. Then read it with `literal_piece`."""
        self._start_transfer_timer()
        self._accept()

    async def literal_piece(self) -> bytes | None:
        """The next octets of the accepted literal, None at its end. Raises: TimedOut."""
        event = await self._event_in_command()
        if not isinstance(event, LiteralData):
            return None
        self._extend_deadline(len(event.data))
        return event.data

    async def next_text(self) -> bytes:
        """The line that follows a streamed literal; `announced` is set if it ends in another one. Raises: BadSyntax."""
        self._start_transfer_timer()
        event = await self._line_in_command()
        self._announced = None
        if isinstance(event, LiteralAnnounced):
            self._announced = event
            self._check_announced(event)
        return event.data

    # --- Lines that are no commands

    async def read_continuation(self, prompt: bytes) -> bytes:
        """Write `+ prompt` and read the client's line. Raises: BadSyntax, TimedOut."""
        self._channel.write(b"+ %b\r\n" % prompt)
        return _continuation(await self.first_event())

    async def read_idle(self, timeout: float) -> bytes | Wake:
        """The client's next line, or the reason why there is none yet: a poke, or `timeout` seconds passed. Raises: BadSyntax."""
        event = await self._event(self._channel.now() + timeout, pokes=True)
        return event if isinstance(event, Wake) else _continuation(event)

    # --- Events

    def _accept(self) -> None:
        announced, self._announced = self._announced, None
        assert announced is not None
        self._framer.accept_literal()
        if not announced.non_sync:
            self._channel.write(b"+ OK\r\n")

    def _check_announced(self, event: LiteralAnnounced) -> None:
        if event.non_sync and event.size > LITERAL_MINUS and self._config.literal == "minus":
            raise BadSyntax("a non-synchronizing literal of that size needs LITERAL+")  # RFC 7888 5

    def _start_transfer_timer(self) -> None:
        self._progress = 0
        deadline = self._channel.now() + self._limits.transfer_timeout
        self._command_deadline = deadline if self._login_deadline is None else min(deadline, self._login_deadline)

    async def _event(self, deadline: float, *, pokes: bool = False) -> Event | Wake:
        while True:
            event = self._framer.next_event()
            if event is not NEED_DATA:
                return event
            data = await self._channel.read(max(0.0, deadline - self._channel.now()), pokes=pokes)
            if isinstance(data, Wake):
                return data
            self._framer.receive_data(data)

    def _extend_deadline(self, octets: int) -> bool:
        """Extend the deadline if the client makes progress. Did it?"""
        self._progress += octets
        if self._progress < PROGRESS:
            return False
        self._start_transfer_timer()
        return True

    async def _event_in_command(self) -> Event:
        event = await self._event(self._command_deadline)
        if isinstance(event, Wake):
            raise TimedOut
        return event

    async def _line_in_command(self) -> Line | LiteralAnnounced:
        event = await self._event_in_command()
        if isinstance(event, LineRefused):
            raise BadSyntax(event.reason)
        assert isinstance(event, Line | LiteralAnnounced)
        return event


def _continuation(event: Event) -> bytes:
    if isinstance(event, Line):
        return event.data
    raise BadSyntax(event.reason if isinstance(event, LineRefused) else "expected a line, not a literal")
