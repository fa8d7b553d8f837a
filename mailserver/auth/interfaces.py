"""Interfaces of authentication: those of back ends (zope.interface), and those that sessions call (Protocol).

A back end answers two questions: does a user exist, and is this its password. It is called on the reactor's thread and may
answer with an awaitable. Further abilities are optional interfaces that a back end provides in addition. Nothing here
imports Twisted; `auth.plugins` finds back ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import Protocol

from attrs import define, field, frozen
from zope.interface import Attribute, Interface

from mailserver.auth.asking import NEW
from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.limits import Limits
from mailserver.errors import MailError, TooManyEnds
from mailserver.explain.trace import Trace
from mailserver.sasl.mechanism import Claim, Credentials
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret


@frozen
class User:
    """An account that exists."""

    name: str
    """The full name, lower case, as the mail location uses it: "anna@example.test"."""
    home: str | None = None
    """Home of the users file, where the mail location asks for `{home}`."""
    addresses: frozenset[str] = field(factory=frozenset)
    """Addresses it may send as besides its own name, lower case."""
    limits: Limits = Limits()
    credential: str = ""
    """The app password that it has logged in with; empty: the main password or a certificate."""
    delegate: str = ""
    """The account that has logged in as this user, with its own password; empty: the user itself."""
    let_in: object = field(default=None, eq=False, repr=False)
    """What the login was decided by, for `Authenticator.confirm`; no secret."""


@frozen
class ShownCertificate:
    """A verified certificate that the client presented on this connection."""

    user: str
    """The user name in the field that `client_user` names; empty if there is none."""
    label: str
    """Identifies the certificate in the log."""


@frozen
class LoginContext:
    """The circumstances of a login attempt, besides the credentials."""

    protocol: str
    """"imap", "pop3" or "submission"; "auth" for another service of a server that asks at a socket."""
    peer: IPv4Address | IPv6Address | None
    host: str | None
    """The configured host whose certificate was served (`TLSInfo.host`), for names without a domain."""
    session_id: str
    certificate: ShownCertificate | None = None
    answer_within: float = inf
    """Seconds after which nobody waits for the answer: delays and waits for a turn end then."""
    server_name: str | None = None
    """The name that the client asked for by SNI."""
    tls: str = ""
    """The version of TLS; empty without it."""
    trace: Trace = field(factory=Trace, eq=False, repr=False)
    """The record of the attempt, which the login service fills."""


class IAuthBackend(Interface):
    """A source of users. All names are passed in lower case."""

    def find_user(name: str) -> User | Awaitable[User | None] | None:
        """The user of that name, or None. Must not check a password.

        Raises: AuthUnavailable if it cannot be determined now. Used to resolve names, and by LMTP.
        """

    def verify_password(user: User, password: Secret) -> bool | Awaitable[bool]:
        """Is it this user's password? False for a disabled user.

        Raises: AuthUnavailable if it cannot be determined now.
        """


class IHashedPasswords(Interface):
    """Optional: the back end holds hashes, and the service checks them in its hash pool."""

    def password_hash(user: User) -> str | None:
        """The stored entry with its scheme, `{ARGON2ID}$argon2id$...`.

        None: this user cannot log in, for instance because it is disabled. "": this back end lists the user, and back
        ends that provide IPasswordsOnly verify the password.
        """

    def typical_hash() -> str | None:
        """A dummy of the scheme and cost of most entries, hashed for unknown users; None if there is none."""


class IPasswordsOnly(Interface):
    """Optional: the back end verifies passwords and cannot tell whether a user exists; `find_user` answers None.

    The service calls its `verify_password` for users that another back end lists without a password. If no configured
    back end lists users, it is called for every name as given, and LMTP finds no user.
    """


@frozen
class TypicalScram:
    """Typical SCRAM keys of a back end's users, for one hash."""

    rounds: int
    """Rounds of most keys."""
    salt_size: int
    """Octets of most salts."""
    everybody: bool
    """Does every user that could log in with a password have keys?"""


class IScramKeys(Interface):
    """Optional: the back end holds SCRAM keys (RFC 5802). `hash_name` is "SHA-256" or "SHA-1"."""

    def scram_keys(user: User, hash_name: str) -> ScramKeys | Awaitable[ScramKeys | None] | None:
        """The user's keys for that hash; None if there are none, and for a disabled user.

        They must belong to the password that `verify_password` accepts now. Raises: AuthUnavailable if it cannot be determined now.
        """

    def typical_scram(hash_name: str) -> TypicalScram | None:
        """Typical keys, which decide whether SCRAM is offered; None while nobody has keys. Answers at once."""


class ITrustsCertificates(Interface):
    """Optional: users may log in by their client certificate, without a password (RFC 4422 appendix A)."""

    def may_log_in(user: User) -> bool | Awaitable[bool]:
        """Does the user exist, and is it not disabled? Raises: AuthUnavailable if it cannot be determined now."""


class IReloadable(Interface):
    """Optional: uses changed data by itself after some time, and at once after `reload`."""

    def reload() -> None:
        """Read the data again. Raises nothing: problems are logged, and the last good data stays."""


class IReadsAhead(IReloadable):
    """Optional: reading takes time, and can be done in advance."""

    def read_ahead() -> None:
        """Read the data in advance. Called in a thread before `reload`, which should then be fast. Raises nothing."""


@frozen
class FoundAppPassword:
    """An app password that exists, is not expired, and whose user is not disabled."""

    user: User
    """With `credential`."""
    label: str
    protocols: frozenset[str] | None = None
    """Where it may be used; None: everywhere."""


class IAppPasswords(Interface):
    """Optional: users have app passwords, random ones that no slow hash protects (`auth.app_passwords`)."""

    def find_app_password(probe: str) -> FoundAppPassword | None:
        """The one with that SHA-256, in hexadecimal. Answers at once, by one look-up. Raises: AuthUnavailable."""

    def app_password(credential: str, user: User) -> FoundAppPassword | None:
        """The user's one with that identifier. Answers at once. Raises: AuthUnavailable."""


class IChanges(Interface):
    """Optional: the back end knows which users have changed."""

    def changed_users() -> ChangedUsers | None:
        """The users, since the last call, whose sessions must end: deleted, disabled, renamed, another password or networks.

        None: it may be anybody, as after a restored copy. Empty at the first call. Called once a second on the reactor's
        thread: it should cost microseconds. Raises nothing.
        """


class IRecordsChanges(IChanges):
    """Optional: the back end says what has changed since any moment, so that a login is looked at once more."""

    def position() -> object:
        """The present moment in the record of changes. Answers at once. Raises: AuthUnavailable."""

    def changed_since(position: object) -> ChangedUsers | None:
        """As `changed_users`, of all changes after that moment. Answers at once. Raises: AuthUnavailable."""


@frozen
class Entry:
    """An address that is no user's own name: where its mail goes, and who may send as it."""

    targets: tuple[str, ...]
    """Addresses, lower case, in their order. A name of a user here, of another entry, or of an address elsewhere."""
    senders: frozenset[str] = frozenset()
    """Names of the users that may send as it; none of them may if it is another user's own name."""


@frozen
class DomainEntry:
    """What a back end knows of a domain. The domain is local, whether the configuration has it or not."""

    alias_of: str | None = None
    """The domain that all its addresses stand for."""
    detail: str | None = None
    """The separator of details in its addresses; empty: there are none; None: that of the configuration."""
    enabled: bool = True
    """A disabled domain gets no mail, and nobody may send as an address of it."""


@frozen
class Resolution:
    """Where the mail of one address goes. Something of `local` and `elsewhere` is there."""

    local: tuple[tuple[User, str], ...]
    """Users here, each with the detail of the address (RFC 5233), which may be empty."""
    elsewhere: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    """How it was found, a sentence for each step, for the administrator."""


@define
class LookUpBudget:
    """The look-ups that may still be made, for several addresses together."""

    left: int

    def take(self, number: int) -> None:
        """Take some of them. Raises: TooManyEnds if there are none left."""
        if self.left <= 0:
            raise TooManyEnds
        self.left -= number


class IAddresses(Interface):
    """Optional: the back end knows addresses besides the names of users. All names are passed in lower case."""

    def find_address(name: str) -> Entry | Awaitable[Entry | None] | None:
        """The entry of exactly that address; "@example.test" asks for the catch-all of a domain. Never without a detail.

        Raises: AuthUnavailable if it cannot be determined now.
        """

    def find_domain(name: str) -> DomainEntry | Awaitable[DomainEntry | None] | None:
        """What is known of a domain. Raises: AuthUnavailable if it cannot be determined now."""


class IDelegates(Interface):
    """Optional: some users of the back end may log in as others (master users)."""

    def may_act_for(delegate: str, user: str, domain: str) -> bool | Awaitable[bool]:
        """May a user of this back end, whose password was right, log in as another, who may be of another back end?

        `domain`: the user's, empty where it has none. Raises: AuthUnavailable if it cannot be determined now.
        """


class IBlocking(Interface):
    """Optional: the methods block their thread, for instance in a library for a database.

    Those that may answer by an awaitable are called in threads of the back end's own, several at once; an awaitable that they
    return is awaited on the reactor's thread. The others (`password_hash`, `typical_hash`, `typical_scram`, `changed_users`,
    `reload`) are called on the reactor's thread, and must answer from memory.
    """


class IOwnAddresses(Interface):
    """Optional: finds users by the addresses that they have besides their names (`User.addresses`)."""

    def find_owners(address: str) -> frozenset[str] | Awaitable[frozenset[str]]:
        """The names of the users that have that address (lower case). Raises: AuthUnavailable if it cannot be determined now."""


class IAuthBackendMaker(Interface):
    """The description of a back end in a file of twisted/plugins/, found by `name`."""

    name = Attribute("The word before the colon in the configuration: `file` in `file:/etc/mailserver/users`.")
    module = Attribute("Dotted name of the module, imported only when used; it has make_backend(argument, hasher).")
    usage = Attribute("One line: what the argument is.")


class Hasher(Protocol):
    """Checks password hashes outside the threads of this process."""

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """Does the password match the `{SCHEME}hash` entry? `share` and `rank`: see `Asking`.

        Raises: TooManyLogins if the queue is full, AuthUnavailable if it cannot be checked.
        """


@frozen
class Abilities:
    """Credentials that the back ends can verify besides passwords."""

    scram_hashes: frozenset[str]
    """Hashes for which SCRAM is offered."""
    certificates: bool


class Authenticator(Protocol):
    """The login service, as sessions call it."""

    def abilities(self) -> Abilities:
        """The current abilities: keys may be added while the server runs."""

    async def scram_keys(self, name: str, hash_name: str, context: LoginContext) -> ScramKeys:
        """The SCRAM keys of `name`; a dummy with a constant salt if there are none.

        Raises: AuthUnavailable.
        """

    def shown_name(self, name: str, context: LoginContext) -> str:
        """A name as a client has typed it, as logs may show it: it may be a password. Raises nothing."""

    def refused(self, error: MailError, name: str, method: str, context: LoginContext) -> str:
        """Record a refused login and return its id, which the error's sentence ends in from now on.

        `name` is as typed; empty where the client has sent none. Sessions call `session.login_refusal`. Raises nothing.
        """

    def accepted(self, user: User, method: str, context: LoginContext) -> None:
        """Record a login that was let in. Raises nothing."""

    async def login(self, claim: Claim, context: LoginContext) -> User:
        """Verify a claim, with the delays of repeated failures.

        Raises: AuthFailed (unknown user and wrong password alike), AuthorizationFailed, AuthUnavailable, LimitReached.
        """

    async def confirm(self, user: User, context: LoginContext) -> None:
        """Look once more at a login that `login` has let in with that context.

        Called last, before the session is registered (`Channel.logged_in`), with no wait in between: a change before is seen
        here, and a later one ends the session. Raises: AccountChanged, AuthUnavailable.
        """

    def exposed(
        self, credentials: Credentials, method: str, context: LoginContext, tell: Callable[[str], None]
    ) -> None:
        """Submit a password that came in clear text by `method` and was refused, for a check out of band.

        `tell(user)` is called later if it is right. The client sees nothing of it. Raises nothing.
        """

    async def find(self, address: str) -> User | None:
        """Find the user of an address, for delivery (without detail handling). Raises: AuthUnavailable."""

    async def resolve(self, address: str, separator: str, budget: LookUpBudget | None = None) -> Resolution:
        """Where the mail of an address (any case) goes. `separator`: of details, where the domain has none of its own.

        The detail keeps its case. `budget`: the look-ups that may be made; None: those of one address.

        Raises: NoSuchUser, AddressLoop, TooManyEnds, AuthUnavailable.
        """

    async def may_send_as(self, user: User, address: str) -> bool:
        """May the user send as that address? Raises: AuthUnavailable."""

    async def senders_of(self, address: str) -> frozenset[str]:
        """The names of the users that may send as an address (any case). Raises: AuthUnavailable."""

    async def separator_of(self, domain: str, separator: str) -> str:
        """The separator of details in a domain, `separator` where it has none of its own. Empty: there are no details.

        Raises: AuthUnavailable.
        """

    async def serves_domain(self, domain: str) -> bool:
        """Is mail for that domain (any case) kept here, by the configuration or a back end? Raises: AuthUnavailable."""

    def is_local_domain(self, domain: str) -> bool:
        """Is it (any case) a domain of the configuration?"""
