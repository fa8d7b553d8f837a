"""The session of one connection of another server, which asks for many of its clients at once.

Requests run beside each other. Each client of the other server has CLIENT_EXCHANGES of them at most, and the connection
MAX_EXCHANGES, so that none takes the places of all; the login service has its own limits for each.

An answer of "unavailable" has no form that all understand: Postfix and Exim report `FAIL ... temp` as a wrong password (535).
Both report a lost connection as temporary (454, 435). So that is their answer, if no other request of the connection is being checked.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Final

from attrs import field, frozen

from mailserver.auth.interfaces import Authenticator
from mailserver.config.model import Limits
from mailserver.dovecot_auth import wire
from mailserver.dovecot_auth.exchange import Asker, Exchange, StartTask, failure_code
from mailserver.errors import ConnectionLost, MailError, TooManyLogins
from mailserver.sasl.registry import Mechanisms, Situation, sends_password
from mailserver.session.channel import Channel, Wake
from mailserver.system.children import Waiting

MAX_EXCHANGES: Final = 1000
"""Requests of a connection that have no answer yet."""
CLIENT_EXCHANGES: Final = 50
"""The same of one client: an IPv4 address or an IPv6 /64."""
IDLE_TIME: Final = 3600.0
"""Seconds that a connection without requests stays open. Postfix connects again when it needs to."""
PLAINTEXT: Final = ("plaintext",)
MUTUAL: Final = ("mutual-auth",)
"""Properties of mechanisms, in Dovecot's words; Postfix compares them with smtpd_sasl_security_options."""

_serial = count(1)


@frozen
class Services:
    """The objects and settings that these sessions share."""

    authenticator: Authenticator
    mechanisms: Mechanisms
    """Those that the configuration allows for submission."""
    start: StartTask
    """Runs a coroutine beside the session."""
    waiting: Callable[[], Waiting]
    """Makes a wait that ends early when its coroutine is cancelled."""
    limits: Limits = field(factory=Limits)


class AuthSession:
    """Requests and answers of one connection."""

    mailbox_name: str | None = None
    command = "AUTH"

    def __init__(self, channel: Channel, current: Callable[[], Services]) -> None:
        """`current` returns the services as they are now: a connection may outlive many reloads."""
        self.channel = channel
        self._current = current
        self._reader = wire.CommandReader()
        self._exchanges: dict[int, Exchange] = {}
        """Those whose coroutine runs, the oldest first. Some are answered already."""
        self._of_client: Counter[str] = Counter()
        self._answers: list[bytes] = []
        self._is_ending = False
        self._has_logged_limit = self._has_logged_address = False

    async def run(self) -> None:
        """Serve until the client is gone, breaks the protocol, or must take a lost connection for an answer."""
        try:
            self._greet()
            while not self._is_ending:
                await self._write_answers()
                data = await self._read()
                if isinstance(data, bytes):
                    self._reader.receive_data(data)
                    await self._take_all()
            await self._write_answers()
        except wire.ProtocolError as error:
            self.channel.log("protocol-error", reason=str(error))
        except ConnectionLost:
            pass
        finally:
            for exchange in list(self._exchanges.values()):
                exchange.abandon()
            self.channel.close()

    @property
    def services(self) -> Services:
        """Those of a request that begins now."""
        return self._current()

    @property
    def login_time(self) -> float:
        """See Connection."""
        return self.services.limits.login_time

    def make_waiting(self) -> Waiting:
        """See Connection."""
        return self.services.waiting()

    def answer(self, line: bytes) -> None:
        """Send a line when the session has its turn."""
        self._answers.append(line)
        self.channel.poke()

    def refuse(self, exchange: Exchange, error: MailError, name: str) -> None:
        """Answer an exchange that has failed."""
        self._answer_failure(exchange.id, exchange.asker, error, name)

    def forget(self, exchange: Exchange) -> None:
        """Release the place of an exchange whose coroutine has ended."""
        if self._exchanges.pop(exchange.id, None) is not None:
            share = exchange.asker.share
            self._of_client[share] -= 1
            if not self._of_client[share]:
                del self._of_client[share]

    # --- Inside

    def _greet(self) -> None:
        offered = self.services.mechanisms.offered(self._situation())
        properties = {name: PLAINTEXT if sends_password(name) else MUTUAL for name in offered}
        self.channel.write(
            wire.handshake(properties, process=os.getpid(), connection=next(_serial), cookie=secrets.token_hex(16))
        )

    def _situation(self) -> Situation:
        """No channel binding and no certificate reaches us through the other server."""
        return Situation(scram_hashes=self.services.authenticator.abilities().scram_hashes)

    async def _read(self) -> bytes | Wake:
        """The client's octets, or POKED. Raises: ConnectionLost, wire.ProtocolError for a line that does not end in time."""
        is_inside_line = self._reader.pending
        data = await self.channel.read(
            self.services.limits.transfer_timeout if is_inside_line else IDLE_TIME, pokes=True
        )
        if data is Wake.TIMEOUT:
            if is_inside_line:
                raise wire.ProtocolError("a line does not end in time")
            raise ConnectionLost
        return data

    async def _write_answers(self) -> None:
        if self._answers:
            self.channel.write(b"".join(self._answers))
            self._answers.clear()
        # Other clients need their turn, and this one must take its answers.
        await self.channel.drain()

    async def _take_all(self) -> None:
        for command in self._reader.commands():
            self._take(command)
            if self._is_ending:
                return
            await self._write_answers()

    def _take(self, command: wire.Command) -> None:
        match command:
            case wire.Version(major):
                if major != wire.MAJOR:
                    raise wire.ProtocolError(f"version {major} of the protocol")
            case wire.Authenticate():
                self._begin(command)
            case wire.Continue(number, data):
                exchange = self._exchanges.get(number)
                if exchange is None or exchange.answered:
                    self.answer(wire.failure(number, reason="this request is not known, or has its answer"))
                else:
                    exchange.take(data)
            case wire.Cancel(number) if number in self._exchanges:
                self._exchanges[number].abandon()

    def _begin(self, request: wire.Authenticate) -> None:
        if request.id in self._exchanges:
            raise wire.ProtocolError("AUTH with the id of a request that has no answer yet")
        try:
            asker = Asker.of_request(request)
        except ValueError:
            self._refuse_request(request, "rip is no IP address")
            return
        if asker.peer is None and self.channel.info.client_address_required:
            self._refuse_request(request, 'rip is missing, and client_address = "required" demands it')
            return
        mechanism = self.services.mechanisms.start(request.mechanism, self._situation())
        if mechanism is None:
            self.answer(wire.failure(request.id, reason="this mechanism is not offered"))
            return
        if self._of_client[asker.share] >= CLIENT_EXCHANGES or not self._has_room():
            if not self._has_logged_limit:
                self._has_logged_limit = True
                self.channel.log("too-many-requests", client=asker.share)
            error, context = TooManyLogins(), asker.context(self.channel.info.session_id)
            self.services.authenticator.refused(error, "", request.mechanism, context)
            self._answer_failure(request.id, asker, error, "")
            return
        exchange = Exchange(self, request, asker, self.services.authenticator)
        self._exchanges[request.id] = exchange
        self._of_client[asker.share] += 1
        exchange.start(mechanism, self.services.start)

    def _refuse_request(self, request: wire.Authenticate, reason: str) -> None:
        """Refuse a request for its address. Other clients of this connection have nothing to do with it."""
        if not self._has_logged_address:
            self._has_logged_address = True
            self.channel.log("bad-request", reason=reason)
        self.answer(wire.failure(request.id, reason=reason))

    def _has_room(self) -> bool:
        """Is there a place, at worst that of the exchange whose client has been silent for longest?"""
        if len(self._exchanges) >= MAX_EXCHANGES:
            silent = next((each for each in self._exchanges.values() if each.waits_for_client), None)
            if silent is not None:
                silent.expire()
        return len(self._exchanges) < MAX_EXCHANGES

    def _answer_failure(self, number: int, asker: Asker, error: MailError, name: str) -> None:
        code = failure_code(error)
        if code == "temp_fail" and asker.service == "smtp" and not self._has_others(number):
            self._is_ending = True
            self.channel.poke()
            return
        self.answer(wire.failure(number, user=name, reason=error.sentence, code=code))

    def _has_others(self, number: int) -> bool:
        """Is another request being checked? One that waits for its client may be left: Postfix never says CANCEL."""
        others = (each for each in self._exchanges.values() if each.id != number)
        return any(not (each.answered or each.waits_for_client) for each in others)
