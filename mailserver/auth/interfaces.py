"""Who may log in: the plugin interfaces (zope) and what sessions call (Protocol).

A back end answers two questions: is this the password of this user, and is there such a user. It is asked on the
reactor's thread and may answer with an awaitable. Optional powers are optional interfaces, offered by implementing
them too. Nothing here imports Twisted; `auth.plugins` finds the makers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, Protocol

from attrs import field, frozen
from zope.interface import Attribute, Interface

from mailserver.sasl.mechanism import Claim, Credentials
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret

LOCAL_NETWORK: Final = "local"
"""The network of clients without an address: those of a Unix socket."""


@frozen
class Limits:
    """What restricts one user. A field is None where nothing is said."""

    networks: tuple[str, ...] | None = None
    """Networks and addresses that the user may log in from; LOCAL_NETWORK for Unix sockets. What cannot be read fits
    nobody.
    """

    def allows(self, peer: IPv4Address | IPv6Address | None) -> bool:
        """May the user log in from that address? An IPv4-mapped address counts as IPv4; None is a Unix socket."""
        if self.networks is None:
            return True
        if isinstance(peer, IPv6Address):
            # The zone of a link-local address is no part of its network.
            peer = peer.ipv4_mapped or IPv6Address(int(peer))
        for text in self.networks:
            if peer is None:
                if text == LOCAL_NETWORK:
                    return True
                continue
            try:
                network = ip_network(text, strict=False)
            except ValueError:
                continue
            if peer in network:
                return True
        return False


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


@frozen
class ShownCertificate:
    """A certificate that the client has shown on this connection and that was verified."""

    user: str
    """The user name in the field of `client_user`; empty where there is none."""
    label: str
    """Which certificate it is, for the log."""


@frozen
class LoginContext:
    """What is known of a login attempt besides the credentials."""

    protocol: str
    """"imap", "pop3" or "submission"."""
    peer: IPv4Address | IPv6Address | None
    host: str | None
    """The host of the configuration that the connection was served (`TLSInfo.host`), for names without a domain."""
    session_id: str
    certificate: ShownCertificate | None = None


class IAuthBackend(Interface):
    """A source of users. All names arrive lower case."""

    def find_user(name: str) -> User | Awaitable[User | None] | None:
        """The user of that name, or None. Must not check a password.

        Raises: AuthUnavailable when it cannot know. Used to resolve names, and by LMTP.
        """

    def verify_password(user: User, password: Secret) -> bool | Awaitable[bool]:
        """Is it this user's password? Disabled users: False.

        Raises: AuthUnavailable when it cannot know.
        """


class IHashedPasswords(Interface):
    """Optional: the back end holds hashes and lets the service check them in its process pool."""

    def password_hash(user: User) -> str | None:
        """The stored entry with its scheme, `{ARGON2ID}$argon2id$...`.

        None: this user cannot log in (disabled, say). "": this back end lists the user and leaves the password to
        those that provide IPasswordsOnly.
        """

    def typical_hash() -> str | None:
        """A dummy of the scheme and cost that most entries have, checked for unknown users; None if there is none."""


class IPasswordsOnly(Interface):
    """Optional: the back end verifies passwords and cannot tell whether a user exists; `find_user` answers None.

    Its `verify_password` is asked for users that another back end lists without a password; and, where no back end
    of the configuration lists users, for every name as it was given. LMTP then knows no user.
    """


@frozen
class TypicalScram:
    """What the SCRAM keys of a back end's users look like, for one hash."""

    rounds: int
    """Of most of them."""
    salt_size: int
    """Octets of most of their salts."""
    everybody: bool
    """Does every user that could log in with a password have keys?"""


class IScramKeys(Interface):
    """Optional: the back end holds SCRAM keys (RFC 5802). `hash_name` is "SHA-256" or "SHA-1"."""

    def scram_keys(user: User, hash_name: str) -> ScramKeys | Awaitable[ScramKeys | None] | None:
        """The user's keys for that hash; None if there are none, and for the disabled.

        They must be of the password that `verify_password` takes now. Raises: AuthUnavailable when it cannot know.
        """

    def typical_scram(hash_name: str) -> TypicalScram | None:
        """Decides whether SCRAM is offered; None while nobody has keys. Answers at once."""


class ITrustsCertificates(Interface):
    """Optional: users may log in by their client certificate, without a password (RFC 4422 appendix A)."""

    def may_log_in(user: User) -> bool | Awaitable[bool]:
        """Is the user there, and not disabled? Raises: AuthUnavailable when it cannot know."""


class IReloadable(Interface):
    """Optional: takes up changed data by itself, and at once when told."""

    def reload() -> None:
        """Read again. Raises nothing: problems are logged, the last good data stays."""


class IReadsAhead(IReloadable):
    """Optional: reading takes a while, and can be done before it is taken up."""

    def read_ahead() -> None:
        """Called in a thread, before `reload`, which should then take no time. Raises nothing."""


class IAuthBackendMaker(Interface):
    """What a file in twisted/plugins/ offers: the way to a back end, found by `name`."""

    name = Attribute("The word before the colon in the configuration: `file` in `file:/etc/mailserver/users`.")
    module = Attribute("Dotted name of the module, imported only when used; it has make_backend(argument, hasher).")
    usage = Attribute("One line: what the argument is.")


KNOWN: Final = 0
"""Class of a user at a network from which it has logged in before."""
NEW: Final = 1
"""Class of all others, but for..."""
GUESSING: Final = 2
"""...networks from which somebody has guessed lately."""
CLASSES: Final = 3


@frozen
class Asking:
    """Class and share of a password check: classes go one before the other, and shares of a class take turns."""

    share: str = ""
    """The user's name in the class KNOWN; else the client, an IPv4 address or an IPv6 /64."""
    rank: int = NEW


ANYBODY: Final = Asking()


class Hasher(Protocol):
    """Checks password hashes outside this process's threads."""

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """Does the password belong to the `{SCHEME}hash` entry? `share` and `rank` as `Asking` says.

        Raises: TooManyLogins when the queue is full, AuthUnavailable when it cannot be checked.
        """


@frozen
class Abilities:
    """What the back ends can verify besides passwords."""

    scram_hashes: frozenset[str]
    """Hashes for which SCRAM is to be offered."""
    certificates: bool


class Authenticator(Protocol):
    """The login service, as sessions call it."""

    def abilities(self) -> Abilities:
        """As of now: keys may be added while the server runs."""

    async def scram_keys(self, name: str, hash_name: str, context: LoginContext) -> ScramKeys:
        """The keys by which SCRAM asks who says to be `name`; made up, and always the same, where there are none.

        Raises: AuthUnavailable.
        """

    async def login(self, claim: Claim, context: LoginContext) -> User:
        """Verify, with the delays that repeated failures earn.

        Raises: AuthFailed (unknown or wrong, alike), AuthorizationFailed, AuthUnavailable, LimitReached.
        """

    def exposed(
        self, credentials: Credentials, method: str, context: LoginContext, tell: Callable[[str], None]
    ) -> None:
        """A password came in clear text and has been refused; `method` is how. It is forgotten, or checked later.

        `tell(user)` is called then if it is right. Nothing of that shows to the client, and nothing is raised.
        """

    async def find(self, address: str) -> User | None:
        """The user that an address belongs to, for delivery (no plus-detail handling). Raises: AuthUnavailable."""

    def is_local_domain(self, domain: str) -> bool:
        """Is mail for that domain (any case) kept here?"""
