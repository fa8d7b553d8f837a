"""The interface of a connection for protocol sessions. `net.connection` implements it on a Twisted transport.

A session is one coroutine, `run()`. It awaits only what this module and `store.interfaces.StoreRunner` offer, so
tests drive it without a reactor. Commands of a connection run one after another: the session does not read the next
one before the last one is answered, and unread input is held back by flow control.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from attrs import frozen

from mailserver.errors import ConnectionLost
from mailserver.system.children import Timer


class Wake(enum.Enum):
    """The reason why `Channel.read` returned no bytes."""

    POKED = "poked"
    """`poke()` was called: the mailbox may have changed."""
    TIMEOUT = "timeout"
    """The timeout has passed."""


class CorruptInput(ConnectionLost):
    """The client's compressed octets cannot be decompressed any further; its text says why. Octets can still be written."""


@frozen
class ClientCertificate:
    """A client's certificate that was verified against the domain's authorities."""

    user: str
    """The name in the field that the domain's settings choose, unchanged; empty if there is none."""
    subject: str
    """RFC 4514, for the log."""
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""


@frozen
class TLSInfo:
    """The result of the TLS handshake."""

    version: str
    """In OpenSSL's words: "TLSv1.3"."""
    cipher: str
    server_name: str | None
    """The SNI name asked for, lower case; None without SNI."""
    alpn: str | None = None
    """The application protocol agreed on (RFC 7301); None where the client offered none."""
    client: ClientCertificate | None = None
    """The client's certificate; None without one, and for one that was not verified."""
    host: str | None = None
    """The host of the configuration that was served, `*.name` of a wildcard: the one asked for, or the listener's own
    default; None for the default of all."""


@frozen
class ConnectionInfo:
    """The facts of one connection. A new one replaces it after STARTTLS."""

    session_id: str
    """Short, unique in the log."""
    protocol: str
    """The listener's: "imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp", "auth", "lookup", "http", "https"."""
    peer: IPv4Address | IPv6Address | None
    """The client's address (from a trusted proxy's header, if there is one); None on a Unix socket."""
    peer_port: int
    local: str
    """The local address, for the log: "127.0.0.1:993" or a path."""
    tls: TLSInfo | None
    cleartext_allowed: bool
    """The listener's configuration allows passwords without TLS, from this client at least."""
    starttls_offered: bool
    """The listener can start TLS and has not."""
    tls_required: bool = False
    """LMTP `require_tls`: nothing but STARTTLS before TLS."""
    proofs_allowed: bool = False
    """The listener's configuration allows mechanisms without TLS that send no password."""

    results_trusted: bool = False
    """LMTP `trusted_authentication_results`: the transfer agent has removed forged results in our name."""
    client_address_required: bool = False
    """Logins at other servers, `client_address`: each request names its client."""

    @property
    def asked_host(self) -> str | None:
        """The host name that the client asked for by SNI, if it is one of the configuration; else the listener's own.

        None where there is neither.
        """
        if self.tls is None or self.tls.host is None:
            return None
        if not self.tls.host.startswith("*."):
            return self.tls.host
        return self.tls.server_name

    @property
    def password_allowed(self) -> bool:
        """May a password be accepted on this connection now?"""
        return self.tls is not None or self.cleartext_allowed

    @property
    def login_allowed(self) -> bool:
        """May a client log in on this connection now, by whatever mechanism?"""
        return self.password_allowed or self.proofs_allowed


class Channel(Protocol):
    """A connection. All calls are made on the reactor's thread."""

    @property
    def info(self) -> ConnectionInfo:
        """The facts as they are now."""

    @property
    def input_ended(self) -> bool:
        """Has the client ended its input? It may still read, or be gone."""

    def now(self) -> float:
        """Monotonic seconds, of the reactor's clock."""

    def read(self, timeout: float, *, pokes: bool = False) -> Coroutine[Any, Any, bytes | Wake]:
        """The next bytes of the client (never empty), or the reason why there are none.

        With `pokes`, a poke since the last such read makes it return at once. Without it, pokes are remembered.
        Raises: ConnectionLost at end of input, and ever after; CorruptInput.
        """

    def write(self, data: bytes) -> None:
        """Queue bytes. They are sent in one piece when the session next waits. They are dropped once the client is gone."""

    async def drain(self) -> None:
        """Wait until the client has taken enough of the queued bytes, and, in a long answer, until other clients had a turn.

        Call it between chunks of an answer, and between slices of long work.
        Raises: ConnectionLost when the client is gone or has taken nothing for too long.
        """

    async def start_tls(self) -> None:
        """Send the queued bytes and do the TLS handshake; `info.tls` is then set.

        The caller makes sure that no byte of the client is left unread in its framer; bytes that arrived before
        the handshake and were not read end the connection. Raises: ConnectionLost.
        """

    @property
    def compressed(self) -> bool:
        """Is DEFLATE active in both directions?"""

    def start_compression(self) -> None:
        """Send the queued bytes, then compress and decompress all further ones (RFC 4978 3)."""

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises: ConnectionLost when the client goes meanwhile."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call a function after that time, also while the session waits; its writes are sent at once."""

    def poke(self) -> None:
        """Make a `read(pokes=True)` return, now or when it is next called. Safe to repeat."""

    def logged_in(self, user: str, credential: str = "", delegate: str = "") -> None:
        """Count this connection for `user` from now on. `credential`: the app password that let it in; `delegate`: the account
        that has logged in as the user; empty: none.

        Raises: LimitReached (sessions per user and address).
        """

    def logged_out(self) -> None:
        """Count it as one that has not logged in again, with the deadline of a new login.

        Raises: LimitReached (such connections of an address), and the connection has no user all the same.
        """

    def channel_binding(self) -> bytes | None:
        """The 32 octets of tls-exporter (RFC 9266); None without TLS, and where another connection could have the same."""

    def log(self, event: str, **fields: object) -> None:
        """Log an event with the connection's facts. Values are escaped; they must not be secrets."""

    def bug(self, doing: str) -> None:
        """Log the exception that is being handled, with its traceback and the action that failed."""

    def close(self) -> None:
        """Send the queued bytes and end the connection. Later reads raise ConnectionLost."""
