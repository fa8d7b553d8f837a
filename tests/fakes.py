"""A connection, a runner and a login service for tests: sessions run without a reactor, one step at a time.

client = Client(lambda channel: Session(channel, services), info(protocol="imaps", tls=True))
assert client.take() == b"* OK ..."          # what the session wrote since the last take
client.send(b"a NOOP\\r\\n")                   # drives the session until it waits again
client.poke(); client.wait(120)              # a poke; let the fake clock pass
client.hang_up()
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from ipaddress import ip_address
from typing import Any, Generic, TypeVar, cast

import attrs
from attrs import frozen

from mailserver.auth import resolution
from mailserver.auth.interfaces import Abilities, DomainEntry, Entry, LoginContext, LookUpBudget, Resolution, User
from mailserver.errors import AccountChanged, AuthFailed, AuthorizationFailed, ConnectionLost, MailError
from mailserver.explain.names import shown_name
from mailserver.explain.refs import new_ref
from mailserver.sasl.mechanism import Certified, Claim, Credentials
from mailserver.sasl.scram_keys import ScramKeys, derive
from mailserver.session.channel import ConnectionInfo, TLSInfo, Wake
from mailserver.session.deflate import DeflateStream
from tests.refs import without_refs

T = TypeVar("T")

BINDING = bytes(range(32))
"""What stands for the octets of tls-exporter of any connection with TLS."""
PROTOCOL_TLS = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "mail.example.test", host="mail.example.test")


def info(
    protocol: str = "imaps", *, tls: bool | None = None, cleartext: bool = False, **changes: Any
) -> ConnectionInfo:
    """Connection facts: TLS by the protocol's name unless said otherwise."""
    secure = protocol.endswith("s") and protocol != "lmtps" if tls is None else tls
    facts = ConnectionInfo(
        session_id="test1",
        protocol=protocol,
        peer=ip_address("192.0.2.7"),
        peer_port=40000,
        local="192.0.2.1:993",
        tls=PROTOCOL_TLS if secure else None,
        cleartext_allowed=cleartext,
        starttls_offered=not secure,
    )
    return attrs.evolve(facts, **changes)


@types.coroutine
def _suspend(waiting: object) -> Generator[object, Any, Any]:
    return (yield waiting)


class FakeTimer:
    """A call that is to come."""

    def __init__(self, due: float, call: Callable[[], None], pending: list[FakeTimer]) -> None:
        self.due = due
        self.call = call
        self._pending = pending

    def cancel(self) -> None:
        self._pending.remove(self)


class FakeChannel:
    """`mailserver.session.channel.Channel` on two byte queues and a fake clock."""

    def __init__(self, facts: ConnectionInfo) -> None:
        self.facts = facts
        self.input: deque[bytes] = deque()
        self.output = bytearray()
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.bugs: list[str] = []
        self.user: str | None = None
        self.closed = False
        self.ended = False
        self.time = 1000.0
        self.drains = 0
        self.poked = False
        self.reading: tuple[float, bool] | None = None
        self.sleeping: float | None = None
        self.login_error: Exception | None = None
        self.logout_error: Exception | None = None
        self.timers: list[FakeTimer] = []
        self.deflate: DeflateStream | None = None

    @property
    def info(self) -> ConnectionInfo:
        return self.facts

    @property
    def input_ended(self) -> bool:
        return self.ended

    def now(self) -> float:
        return self.time

    async def read(self, timeout: float, *, pokes: bool = False) -> bytes | Wake:
        while True:
            if self.deflate is not None and (data := self.deflate.read()):
                return data
            if self.input:
                data = self.input.popleft()
                if self.deflate is None:
                    return data
                self.deflate.feed(data)
                continue
            if self.ended or self.closed:
                raise ConnectionLost
            if pokes and self.poked:
                self.poked = False
                return Wake.POKED
            self.reading = (self.time + timeout, pokes)
            woken = await _suspend(self)
            if woken is Wake.TIMEOUT:
                return Wake.TIMEOUT

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes | bytearray | memoryview), f"wrote {type(data)}"
        if not self.ended:
            self.output += data if self.deflate is None else self.deflate.compress(data)

    async def drain(self) -> None:
        self.drains += 1
        if self.ended:
            raise ConnectionLost

    async def start_tls(self) -> None:
        self.facts = attrs.evolve(self.facts, tls=PROTOCOL_TLS, starttls_offered=False)
        if self.input:  # what arrived before the handshake is no ClientHello
            self.closed = True
            raise ConnectionLost

    @property
    def compressed(self) -> bool:
        return self.deflate is not None

    def start_compression(self) -> None:
        self.deflate = DeflateStream()

    async def sleep(self, seconds: float) -> None:
        self.sleeping = self.time + seconds
        await _suspend(self)
        if self.ended:
            raise ConnectionLost

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.time + seconds, call, self.timers)
        self.timers.append(timer)
        return timer

    def poke(self) -> None:
        self.poked = True

    def logged_in(self, user: str, credential: str = "", delegate: str = "") -> None:
        del credential
        self.delegate = delegate
        if self.login_error:
            raise self.login_error
        self.user = user

    def logged_out(self) -> None:
        self.user = None
        if self.logout_error:
            raise self.logout_error

    def channel_binding(self) -> bytes | None:
        return BINDING if self.facts.tls is not None else None

    def log(self, event: str, **fields: object) -> None:
        self.logged.append((event, fields))

    def bug(self, doing: str) -> None:
        import traceback

        self.bugs.append(doing + "\n" + traceback.format_exc())

    def close(self) -> None:
        self.closed = True


class Client:
    """The other end: sends bytes, sees what came back. A bug in the session fails the test at once."""

    def __init__(
        self,
        make_session: Callable[[FakeChannel], Any],
        facts: ConnectionInfo | None = None,
        *,
        allow_bugs: bool = False,
    ) -> None:
        self.channel = FakeChannel(facts or info())
        self.session = make_session(self.channel)
        self.allow_bugs = allow_bugs
        self.done = False
        self._coroutine: Coroutine[Any, Any, None] = self.session.run()
        self._step(None)

    def _step(self, value: object) -> None:
        if self.done:
            return
        channel = self.channel
        channel.reading = channel.sleeping = None
        try:
            self._coroutine.send(value)
        except StopIteration:
            self.done = True
        except ConnectionLost:
            self.done = True
        if channel.bugs and not self.allow_bugs:
            raise AssertionError("\n".join(channel.bugs))

    def _wake(self) -> None:
        reading = self.channel.reading
        if reading and (self.channel.input or self.channel.ended or (reading[1] and self.channel.poked)):
            self._step(None)

    def send(self, data: bytes) -> None:
        """Bytes that arrive in one piece."""
        if data:
            self.channel.input.append(data)
        self._wake()

    def send_bytewise(self, data: bytes) -> None:
        for at in range(len(data)):
            self.send(data[at : at + 1])

    def take(self) -> bytes:
        """What the session has written since the last call, without ids of refused logins."""
        return without_refs(self.take_unmasked())

    def take_unmasked(self) -> bytes:
        """What the session has written since the last call."""
        output = bytes(self.channel.output)
        self.channel.output.clear()
        return output

    def ask(self, data: bytes) -> bytes:
        """Send, and what comes back."""
        self.send(data)
        return self.take()

    def settle(self) -> None:
        """Take up a poke that another session's work caused."""
        self._wake()

    def poke(self) -> None:
        self.channel.poke()
        self._wake()

    def wait(self, seconds: float) -> None:
        """Let the clock pass: time-outs, sleeps and timers that end within are taken in order."""
        end = self.channel.time + seconds
        while not self.done:
            channel = self.channel
            due = channel.sleeping if channel.sleeping is not None else channel.reading[0] if channel.reading else None
            timer = min(channel.timers, key=lambda timer: timer.due, default=None)
            if timer is not None and timer.due <= end and (due is None or timer.due <= due):
                channel.time = timer.due
                channel.timers.remove(timer)
                timer.call()
                continue
            if due is None or due > end:
                break
            channel.time = max(channel.time, due)
            self._step(None if channel.sleeping is not None else Wake.TIMEOUT)
        self.channel.time = end

    def hang_up(self) -> None:
        self.channel.ended = True
        if self.channel.sleeping is not None:
            self._step(None)
        self._wake()


class DirectRunner:
    """A `StoreRunner` that runs at once."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        self.runs += 1
        return Finished(operation())


@frozen
class Finished(Generic[T]):
    """An awaitable of a result that is there; nobody need await it."""

    result: T

    def __await__(self) -> Generator[Any, Any, T]:
        yield from ()
        return self.result


class FakeAuthenticator:
    """An `Authenticator` over a dict of name -> password; every password is checked in clear."""

    def __init__(
        self, users: dict[str, str] | None = None, domains: tuple[str, ...] = ("example.test", "example.org")
    ) -> None:
        self.users = {"anna@example.test": "secret", "bert@example.org": "secret2"} if users is None else users
        self.domains = domains
        self.entries: dict[str, Entry] = {}
        self.domain_entries: dict[str, DomainEntry] = {}
        self.error: Exception | None = None
        self.contexts: list[LoginContext] = []
        self.refusals: list[tuple[str, str, str, str]] = []
        """Id, typed name, method and protocol of each refused login."""
        self.accepted_logins: list[tuple[str, str, str]] = []
        """User, method and protocol of each login that was let in."""
        self.changed: set[str] = set()
        """Users that were changed since they were let in."""
        self.can = Abilities(frozenset(), certificates=False)
        self.exposures: list[tuple[str, bytes, str, str]] = []
        """Name, password, method and protocol of each that came in clear text."""

    def abilities(self) -> Abilities:
        return self.can

    async def scram_keys(self, name: str, hash_name: str, context: LoginContext) -> ScramKeys:
        del context
        if self.error:
            raise self.error
        return derive(hash_name, self.users.get(name.lower(), "nobody's").encode(), b"salt of 16 octet", 4096)

    def refused(self, error: MailError, name: str, method: str, context: LoginContext) -> str:
        error.ref = new_ref()
        self.refusals.append((error.ref, name, method, context.protocol))
        return error.ref

    def shown_name(self, name: str, context: LoginContext) -> str:
        return shown_name(name, is_user=bool(context.trace.user))

    def accepted(self, user: User, method: str, context: LoginContext) -> None:
        self.accepted_logins.append((user.name, method, context.protocol))

    async def login(self, claim: Claim, context: LoginContext) -> User:
        self.contexts.append(context)
        if self.error:
            raise self.error
        name = claim.name.lower()
        if name not in self.users:
            raise AuthFailed
        if isinstance(claim, Credentials):
            password = claim.password.reveal()
            right = bool(password) and self.users[name].encode() == password
        else:
            right = isinstance(claim, Certified) or claim.fits
        if not right:
            raise AuthFailed
        if claim.authorization and claim.authorization.lower() != name:
            raise AuthorizationFailed
        return User(name)

    async def confirm(self, user: User, context: LoginContext) -> None:
        del context
        if user.name in self.changed:
            raise AccountChanged("it was changed")

    def exposed(
        self, credentials: Credentials, method: str, context: LoginContext, tell: Callable[[str], None]
    ) -> None:
        del tell
        self.exposures.append((credentials.name, credentials.password.reveal(), method, context.protocol))

    async def find(self, address: str) -> User | None:
        if self.error:
            raise self.error
        return User(address.lower()) if address.lower() in self.users else None

    def is_local_domain(self, domain: str) -> bool:
        return domain.lower() in self.domains

    async def senders_of(self, address: str) -> frozenset[str]:
        if self.error:
            raise self.error
        entry = self.entries.get(address.lower())
        own = frozenset({address.lower()} & set(self.users))
        return own if entry is None else own | entry.senders

    async def separator_of(self, domain: str, separator: str) -> str:
        known = await self.find_domain(domain)
        return separator if known is None or known.detail is None else known.detail

    async def serves_domain(self, domain: str) -> bool:
        if self.error:
            raise self.error
        return self.is_local_domain(domain) or await self.find_domain(domain.lower()) is not None

    async def find_user(self, name: str) -> User | None:
        return await self.find(name)

    async def find_address(self, name: str) -> Entry | None:
        return self.entries.get(name)

    async def find_domain(self, name: str) -> DomainEntry | None:
        return self.domain_entries.get(name)

    async def resolve(self, address: str, separator: str, budget: LookUpBudget | None = None) -> Resolution:
        if self.error:
            raise self.error
        return await resolution.resolve(self, address.lower(), separator, written=address, budget=budget)

    async def may_send_as(self, user: User, address: str) -> bool:
        if self.error:
            raise self.error
        entry = self.entries.get(address)
        if address == user.name or address in user.addresses or (entry is not None and user.name in entry.senders):
            return True
        found = await self.find(address) if self.is_local_domain(address.rpartition("@")[2]) else None
        return found is not None and found.name == user.name


def run_now(coroutine: Awaitable[T]) -> T:
    """The result of a coroutine, or of another awaitable, that waits for nothing."""
    try:
        next(coroutine.__await__())
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("the coroutine waits")
