"""Decisions inside a handshake and their results: refusals, the application protocol, the client's certificate.

Each `ServerConnection` has a `Handshake` from the start, where OpenSSL's callbacks find it. (Its application data belongs to
Twisted, which stores the transport there.)

- A refusal in the callback of the server name sends the alert of its `HandshakeRefused`. pyOpenSSL's own callback knows
  one alert only and passes the exception to `sys.excepthook`, so this module has its own.
- ALPN (RFC 7301): a client that offers only unknown protocols gets alert no_application_protocol. A client that offers
  none is served: mail clients seldom do.
- OpenSSL verifies a client's certificate against the store of the name's context. A resumed session proves nothing about
  its client: names that request certificates issue no tickets.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from attrs import define
from cryptography import x509
from OpenSSL import SSL, crypto

from mailserver.tls.context.client_certificates import NONE_SHOWN, Demand, verification_fault
from mailserver.tls.context.client_hello import LONGEST, Incomplete, Unreadable, server_name
from mailserver.tls.context.private_names import is_resumed, set_server_name_callback, take_session_context

HANDSHAKE_FAILURE: Final = 40
PROTOCOL_VERSION: Final = 70
INTERNAL_ERROR: Final = 80
UNRECOGNIZED_NAME: Final = 112
CERTIFICATE_REQUIRED: Final = 116
"""Alerts (RFC 8446 6, RFC 6066 3)."""

PROTOCOLS: Final[dict[str, tuple[bytes, ...]]] = {
    "imap": (b"imap",),
    "pop3": (b"pop3",),
    # IANA's registry has no identifier for these; some clients and servers say the protocol's own name.
    "submission": (b"submission", b"smtp"),
    "lmtp": (b"lmtp",),
    "http": (b"http/1.1", b"http/1.0"),
}
"""The ALPN identifiers of each family of protocols, the one preferred first."""


_OUR_CERTIFICATE: Final = "check its names, dates and chain, and whether the client knows its authority"

_NO_CLIENT: Final = "no mail client sends this: a scanner or a broken client; ignore it unless it is frequent"

_ADVICE: Final = {
    "no shared cipher": 'it offers no suite that is served; a device without a better one needs preset = "old-devices"',
    "unsupported protocol": "the client's TLS version is below minimum_version; nothing below 1.2 is served",
    "version too low": "the client's TLS version is below minimum_version; nothing below 1.2 is served",
    "wrong version number": "this is not TLS: the client continued in clear text instead of starting a handshake",
    "http request": "a web browser or a scanner has connected to a mail port",
    "no suitable signature algorithm": "it supports no key of ours; a second_certificate of the other type may help",
    "no suitable key share": "it offers no group that is served",
    "no suitable groups": "it offers no group that is served",
    "unknown ca": "the client does not know the authority of our certificate: import it there, or have the chain sent",
    "certificate unknown": f"the client refuses our certificate: {_OUR_CERTIFICATE}",
    "bad certificate": f"the client refuses our certificate: {_OUR_CERTIFICATE}",
    "certificate expired": "the client says that our certificate has expired: check its dates and the client's clock",
    "bad extension": f"such as an invalid server name; {_NO_CLIENT}",
    "length mismatch": _NO_CLIENT,
    "excessive message size": _NO_CLIENT,
    "data length too long": _NO_CLIENT,
    "record too small": _NO_CLIENT,
    "unexpected message": _NO_CLIENT,
}
"""Advice, by part of OpenSSL's reason."""


class HandshakeRefused(Exception):
    """Ends the handshake with an alert, raised in the callback of the server name."""

    def __init__(self, alert: int) -> None:
        super().__init__(alert)
        self.alert = alert


class NoApplicationProtocol(SSL.Error):
    """The client offers only protocols that are not served here."""

    def __init__(self, offered: list[bytes]) -> None:
        names = ", ".join(repr(name[:20])[2:-1] for name in offered[:5])
        reason = f"no application protocol of ours among those offered: {names}; it is a client of another protocol"
        super().__init__([("SSL routines", "", reason)])


@define
class Handshake:
    """The state of one connection's handshake."""

    protocols: tuple[bytes, ...] = ()
    """ALPN identifiers that are served; with none the extension is ignored."""
    default: str | None = None
    """The listener's host for clients that send no name; None for that of [tls]."""
    host: str | None = None
    """The host that was served: the requested one, or the listener's default; None for that of [tls]."""
    demand: Demand = Demand()
    """The requested name's demand for a client certificate."""
    fault: str = ""
    """Why the handshake or the client's certificate was refused, for the administrator."""


class BaseContext(SSL.Context):
    """The context of a connection before its server name is known."""

    naming: SSL.Context
    """A context with the same settings, from which a connection inherits the session context of its name."""
    name_callback: object = None
    """The callback that OpenSSL calls; it must live as long as the context."""


SESSION_CONTEXT: Final = b"mailserver"
"""The session context of every context: OpenSSL does not resume if it differs or is missing."""


class ServerConnection(SSL.Connection):
    """The server's side of one connection, over memory.

    A session may be resumed under its own name alone (RFC 6066 3): another name has another certificate and other terms.
    This holds for TLS 1.3 too, where the RFC does not require it (RFC 8446 4.2.11). OpenSSL resumes no session of another
    session context, which it compares before it reads the name; so this class reads the name first.
    """

    def __init__(
        self, context: BaseContext, protocols: tuple[bytes, ...], default: str | None = None, unnamed: str = ""
    ) -> None:
        """Make it with ALPN identifiers, the listener's own default host, and the host for clients without a name."""
        super().__init__(context, None)
        self.handshake = Handshake(protocols, default)
        self._hello: bytes | None = b""
        """The ClientHello received so far; None once it is parsed."""
        self._naming = context.naming
        self._unnamed = unnamed

    def bio_write(self, buf: bytes | bytearray | memoryview) -> int:
        """See pyOpenSSL."""
        self.examine(bytes(buf))
        return super().bio_write(bytes(buf))

    def examine(self, octets: bytes) -> None:
        """Collect the ClientHello from what OpenSSL is about to get."""
        if self._hello is None:
            return
        self._hello += octets
        try:
            raw = server_name(self._hello)
        except Incomplete:
            if len(self._hello) <= LONGEST:
                return
            self._resume_nothing()
        except Unreadable:
            self._resume_nothing()
        else:
            self._set_session_context(_session_context(raw, self._unnamed))
        self._hello = None

    def _set_session_context(self, name: bytes) -> None:
        """Set the session context by way of `naming`: pyOpenSSL's bindings lack SSL_set_session_id_context.

        A connection inherits it from a context that it is given, and keeps it if that one changes later.
        """
        naming = self._naming
        naming.set_session_id(name)
        take_session_context(self, naming)
        naming.set_session_id(SESSION_CONTEXT)

    def _resume_nothing(self) -> None:
        self.set_options(SSL.OP_NO_TICKET)


@lru_cache(maxsize=1024)
def _session_context(raw: bytes | None, unnamed: str) -> bytes:
    """Return the session context, at most 32 octets, of a requested name. Invalid names count as none."""
    name = raw.removesuffix(b".").lower() if raw else b"\0" + unnamed.encode()
    return hashlib.sha256(name).digest()


def handshake_of(connection: SSL.Connection) -> Handshake:
    """Return a connection's state; an empty one for a connection of another class."""
    return connection.handshake if isinstance(connection, ServerConnection) else Handshake()


def set_name_callback(context: BaseContext, choose: Callable[[SSL.Connection], None]) -> None:
    """Have `choose` called once the ClientHello is parsed; it may raise HandshakeRefused."""

    def called(connection: SSL.Connection) -> int | None:
        try:
            choose(connection)
        except HandshakeRefused as refused:
            return refused.alert
        except Exception:
            sys.excepthook(*sys.exc_info())
            return INTERNAL_ERROR
        return None

    context.name_callback = set_server_name_callback(context, called)


def select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """Choose the application protocol, in OpenSSL's callback for ALPN. Raises: NoApplicationProtocol, which sends its alert."""
    ours = handshake_of(connection).protocols
    if not ours:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    for name in ours:
        if name in offered:
            return name
    raise NoApplicationProtocol(offered)


def request_certificate(connection: SSL.Connection, demand: Demand) -> None:
    """Request a certificate from the client, in the callback of the server name. Raises: HandshakeRefused.

    A resumed session has shown no certificate, or to another name: it cannot meet a requirement.
    """
    handshake_of(connection).demand = demand
    if demand.certificates == "none":
        return
    if is_resumed(connection) and demand.certificates == "required":
        handshake_of(connection).fault = NONE_SHOWN
        modern = connection.get_protocol_version() == SSL.TLS1_3_VERSION
        raise HandshakeRefused(CERTIFICATE_REQUIRED if modern else HANDSHAKE_FAILURE)
    connection.set_options(SSL.OP_NO_TICKET)
    required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if demand.certificates == "required" else 0
    connection.set_verify(SSL.VERIFY_PEER | required, _verify)


def _verify(connection: SSL.Connection, certificate: crypto.X509, error: int, _depth: int, good: int) -> bool:
    """Decide on each certificate of the chain after OpenSSL. If one is only requested, an invalid one counts as none."""
    handshake = handshake_of(connection)
    if not good:
        handshake.fault = handshake.fault or verification_fault(error, certificate.to_cryptography())
    return bool(good) or handshake.demand.certificates == "asked"


def verified_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    """Return the client's certificate after the handshake, if it was requested, shown in this one and verified."""
    handshake = handshake_of(connection)
    if handshake.demand.certificates == "none" or handshake.fault or is_resumed(connection):
        return None
    return connection.get_peer_certificate(as_cryptography=True)


def openssl_reason(error: SSL.Error) -> str:
    """Return OpenSSL's reasons without positions in its source."""
    reasons = [str(entry[-1]) for entry in (error.args[0] if error.args else ()) if isinstance(entry, tuple)]
    return "; ".join(reasons) or type(error).__name__


def failure_reason(connection: SSL.Connection, reason: str) -> str:
    """Say why a handshake failed, for the administrator; `reason` is OpenSSL's."""
    if fault := handshake_of(connection).fault:
        return fault
    if "peer did not return a certificate" in reason:
        return NONE_SHOWN
    advice = next((advice for words, advice in _ADVICE.items() if words in reason), "")
    return f"{reason}: {advice}" if advice else reason
