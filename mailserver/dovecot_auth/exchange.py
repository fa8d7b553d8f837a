"""One exchange of a connection: from AUTH to its one answer, beside the others of the same connection.

The client's client is known by what the client says: its address is `rip`. An answer that the login service has not given
after ANSWER_TIME is not waited for: Postfix gives up after ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, Protocol

from attrs import frozen

from mailserver.auth.interfaces import Authenticator, LoginContext, User
from mailserver.dovecot_auth import wire
from mailserver.errors import AuthFailed, AuthorizationFailed, AuthUnavailable, BadSyntax, MailError
from mailserver.sasl.mechanism import Mechanism
from mailserver.session.channel import Channel
from mailserver.session.login_refusal import refuse_login
from mailserver.session.sasl_exchange import ExchangeCancelled, SaslExchange
from mailserver.system.children import Timer, Waiting
from mailserver.types import client_of

ANSWER_TIME: Final = 8.0
"""Seconds from a client's message to our answer, at most: two before Postfix gives up."""
CHECK_TIME: Final = 7.0
"""Seconds after which delays and waits for a turn end, so that the password can still be checked within ANSWER_TIME."""
LOGGED_SERVICE: Final = 255
"""Characters of the service's name that the log keeps."""
PROTOCOLS: Final = {"smtp": "submission", "submission": "submission", "imap": "imap", "pop3": "pop3"}
"""The protocol of a login, by the client's name of its service; "auth" for any other."""


class OutOfTurn(ExchangeCancelled):
    """The client has sent a message while the server checks the one before."""

    text = "this request waits for no message"


class RunningTask(Protocol):
    """A coroutine that runs beside its session."""

    def cancel(self) -> None:
        """End its wait, if that can be abandoned."""


StartTask = Callable[[Coroutine[Any, Any, None]], RunningTask]


class Connection(Protocol):
    """The session of an exchange, as the exchange sees it."""

    @property
    def channel(self) -> Channel:
        """For the log and for timers."""

    @property
    def login_time(self) -> float:
        """Seconds for each message of the client."""

    def make_waiting(self) -> Waiting:
        """Make a wait that ends early when its coroutine is cancelled."""

    def answer(self, line: bytes) -> None:
        """Send a line when the session has its turn."""

    def refuse(self, exchange: Exchange, error: MailError, name: str) -> None:
        """Answer an exchange that has failed."""

    def forget(self, exchange: Exchange) -> None:
        """Release the place of an exchange whose coroutine has ended."""


@frozen
class Asker:
    """The client of the client, and what is asked for it."""

    peer: IPv4Address | IPv6Address | None
    """None where the client does not name it."""
    service: str

    @classmethod
    def of_request(cls, request: wire.Authenticate) -> Asker:
        """Raises: ValueError for an address that is none."""
        text = request.parameters.get("rip", "")
        peer = ip_address(text) if text else None
        if isinstance(peer, IPv6Address):
            # A zone says nothing here, and may be any text.
            peer = peer.ipv4_mapped or IPv6Address(int(peer))
        return cls(peer, request.parameters.get("service", ""))

    @property
    def share(self) -> str:
        """The key by which exchanges are counted."""
        return client_of(self.peer)

    def context(self, session_id: str) -> LoginContext:
        """The circumstances for the login service. A user name without a domain is completed by the default domain."""
        protocol = PROTOCOLS.get(self.service, "auth")
        return LoginContext(protocol, self.peer, None, session_id, answer_within=CHECK_TIME)


class Exchange:
    """It has one answer at most: OK or FAIL, or, if it is unavailable, the end of the connection."""

    def __init__(
        self, session: Connection, request: wire.Authenticate, asker: Asker, authenticator: Authenticator
    ) -> None:
        self.id = request.id
        self.asker = asker
        self.answered = False
        self._session = session
        self._method = request.mechanism
        self._initial = request.initial
        self._last_with_success = "final-resp-ok" in request.parameters
        self._waiting: Waiting | None = None
        """Waits for the client's next message."""
        self._task: RunningTask | None = None
        self._timer: Timer | None = None
        self._name = ""
        self._context = asker.context(session.channel.info.session_id)
        self._authenticator = authenticator

    @property
    def waits_for_client(self) -> bool:
        """Is it the client's turn?"""
        return self._waiting is not None

    def start(self, mechanism: Mechanism, start: StartTask) -> None:
        """Run until the first wait."""
        exchange = SaslExchange(
            mechanism, self._ask, self._authenticator, self._context, last_with_success=self._last_with_success
        )
        self._set_timer(ANSWER_TIME, self._overdue)
        task = start(self._run(exchange))
        if not self.answered:
            self._task = task

    def take(self, data: bytes) -> None:
        """Go on with the client's message. If it is not the client's turn, this exchange alone fails.

        Dovecot's `auth_request_handler_auth_continue` does the same ("Unexpected continuation").
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._refuse(OutOfTurn())
            self._end_wait()
            return
        self._set_timer(ANSWER_TIME, self._overdue)
        waiting.callback(data)

    def abandon(self) -> None:
        """End it without an answer: nobody waits for one."""
        self._close()
        self._end_wait()

    def expire(self) -> None:
        """End it, as the client's message does not come."""
        self._refuse(ExchangeCancelled("no answer from the client in time"))
        self._end_wait()

    async def _run(self, exchange: SaslExchange) -> None:
        # Exim sends an empty one where its client has sent none. No mechanism that is offered begins by an empty message.
        initial, self._initial = self._initial or None, None
        try:
            try:
                user = await exchange.run(initial)
                await self._authenticator.confirm(user, self._context)
            finally:
                self._name = exchange.name
            self._accept(user, exchange.last)
        except MailError as error:
            self._refuse(error)
        except Exception:
            self._session.channel.bug(f"authenticating by {self._method}")
            self._refuse(AuthUnavailable())
        finally:
            # Also where the turn limit has ended the coroutine.
            self._refuse(AuthUnavailable())
            self._session.forget(self)

    async def _ask(self, data: bytes) -> bytes:
        if self.answered:
            raise ExchangeCancelled
        session = self._session
        self._waiting = waiting = session.make_waiting()
        self._set_timer(session.login_time, self.expire)
        session.answer(wire.challenge(self.id, data))
        answer: bytes = await waiting
        return answer

    def _accept(self, user: User, last: bytes | None) -> None:
        if self.answered:
            return
        self._close()
        self._session.channel.log(
            "login", **self._asker_fields(), user=user.name, method=self._method, **_delegate(user)
        )
        self._authenticator.accepted(user, self._method, self._context)
        self._session.answer(wire.success(self.id, user.name, last))

    def _refuse(self, error: MailError) -> None:
        if self.answered:
            return
        self._close()
        if not isinstance(error, BadSyntax | ExchangeCancelled):
            refuse_login(
                self._session.channel,
                self._authenticator,
                self._context,
                self._name,
                error,
                method=self._method,
                **self._asker_fields(),
            )
        name = self._name
        # Postfix logs it.
        self._session.refuse(self, error, name if self._authenticator.shown_name(name, self._context) == name else "")

    def _overdue(self) -> None:
        self._refuse(AuthUnavailable())
        self._end_wait()

    def _end_wait(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(b"*")
        elif self._task is not None:
            self._task.cancel()

    def _close(self) -> None:
        self.answered = True
        self._set_timer(None)

    def _set_timer(self, seconds: float | None, call: Callable[[], None] | None = None) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if seconds is not None and call is not None:

            def expired() -> None:
                self._timer = None
                call()

            self._timer = self._session.channel.call_later(seconds, expired)

    def _asker_fields(self) -> dict[str, object]:
        """Fields of the log about the client's client."""
        asker = self.asker
        named: dict[str, object] = {} if asker.peer is None else {"peer": str(asker.peer)}
        if asker.service:
            named["service"] = asker.service[:LOGGED_SERVICE]
        return named


def _delegate(user: User) -> dict[str, object]:
    """A field of the log with the account that has logged in as the user."""
    return {"delegate": user.delegate} if user.delegate else {}


def failure_code(error: MailError) -> str:
    """The code of a FAIL; "" for a wrong password and the like."""
    match error:
        case AuthorizationFailed():
            return "authz_fail"
        case AuthFailed() | BadSyntax() | ExchangeCancelled():
            return ""
    return "temp_fail"
