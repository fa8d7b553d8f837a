"""What is decided inside a handshake, and what is remembered of it: refusals, the application protocol, the client.

Each `ServerConnection` carries a `Handshake` from its making on. OpenSSL's callbacks find it there. (Its application data
is no place for that: Twisted puts the transport there.)

- A refusal in the callback of the server name sends the alert that its `Refused` names. pyOpenSSL's own callback knows
  one alert only and shows the exception to `sys.excepthook`, so here is one of ours.
- ALPN (RFC 7301): a client that offers protocols of which none is ours gets alert no_application_protocol; one that
  offers none is served, as mail clients hardly ever do.
- A client's certificate is verified by OpenSSL, against the store of the name's context. What a resumed session says
  of its client is never believed: names that ask for certificates give no tickets.
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


_OUR_CERTIFICATE: Final = "look at its names, dates and chain, and whether the client knows its authority"

_NO_CLIENT: Final = "no mail program sends this: a scanner or a broken client; nothing, if it is not often"

_ADVICE: Final = {
    "no shared cipher": 'it offers no suite that is served; a device that has no better one needs preset = "old-devices"',
    "unsupported protocol": "the client speaks TLS below minimum_version, or is set to; below 1.2 nothing is served",
    "version too low": "the client speaks TLS below minimum_version, or is set to; below 1.2 nothing is served",
    "wrong version number": "this is no TLS: the client has gone on in clear text where the handshake was due",
    "http request": "a web browser or a scanner has come to a port of mail",
    "no suitable signature algorithm": "it can use no key of ours; a second_certificate of the other type may help",
    "no suitable key share": "it offers none of groups",
    "no suitable groups": "it offers none of groups",
    "unknown ca": "the client does not know the authority of our certificate: import it there, or have the chain sent",
    "certificate unknown": f"the client refuses our certificate: {_OUR_CERTIFICATE}",
    "bad certificate": f"the client refuses our certificate: {_OUR_CERTIFICATE}",
    "certificate expired": "the client says that ours has: look at its dates and at the client's clock",
    "bad extension": f"a server name that is none, say; {_NO_CLIENT}",
    "length mismatch": _NO_CLIENT,
    "excessive message size": _NO_CLIENT,
    "data length too long": _NO_CLIENT,
    "record too small": _NO_CLIENT,
    "unexpected message": _NO_CLIENT,
}
"""What to do, by words of OpenSSL's reasons."""


class Refused(Exception):
    """Raised in the callback of the server name: the handshake ends with an alert."""

    def __init__(self, alert: int) -> None:
        super().__init__(alert)
        self.alert = alert


class NoApplicationProtocol(SSL.Error):
    """The client offers protocols of which none is served here."""

    def __init__(self, offered: list[bytes]) -> None:
        names = ", ".join(repr(name[:20])[2:-1] for name in offered[:5])
        reason = f"no application protocol of ours among those offered: {names}; a client of another one has this port"
        super().__init__([("SSL routines", "", reason)])


@define
class Handshake:
    """What is known of one connection's handshake so far."""

    protocols: tuple[bytes, ...] = ()
    """ALPN identifiers that are served; none: the extension is not looked at."""
    default: str | None = None
    """The host that the listener serves to clients without a name; None for that of [tls]."""
    host: str | None = None
    """The host that was served: the one asked for, or the listener's default; None for that of [tls]."""
    demand: Demand = Demand()
    """What the name that was asked for demands of the client."""
    fault: str = ""
    """Why it was refused, or the client's certificate was not taken, for the administrator."""


class BaseContext(SSL.Context):
    """A context that connections begin with, before their server name is known."""

    naming: SSL.Context
    """One of the same settings, by which a connection gets the session context of its name."""
    name_callback: object = None
    """What OpenSSL calls: it must live as long as the context."""


SESSION_CONTEXT: Final = b"mailserver"
"""Of every context: OpenSSL refuses to resume where it differs or is missing."""


class ServerConnection(SSL.Connection):
    """The server's side of one connection, over memory.

    A session may be resumed under its own name alone (RFC 6066 3), in TLS 1.3 as well, where it need not be tied to it
    (RFC 8446 4.2.11): another certificate was verified, and another name's terms were met. OpenSSL resumes none of
    another session context, which it compares before it looks at the name; so the name is read before.
    """

    def __init__(
        self, context: BaseContext, protocols: tuple[bytes, ...], default: str | None = None, unnamed: str = ""
    ) -> None:
        """`protocols`: ALPN identifiers. `default`: the listener's own. `unnamed`: the host for clients that name none."""
        super().__init__(context, None)
        self.handshake = Handshake(protocols, default)
        self._hello: bytes | None = b""
        """What has come of the ClientHello; None once it is read."""
        self._naming = context.naming
        self._unnamed = unnamed

    def bio_write(self, buf: bytes | bytearray | memoryview) -> int:
        """See pyOpenSSL's."""
        self.examine(bytes(buf))
        return super().bio_write(bytes(buf))

    def examine(self, octets: bytes) -> None:
        """Look at what OpenSSL is about to get, until the ClientHello is whole."""
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
        """PyOpenSSL's bindings lack SSL_set_session_id_context, but a connection inherits it from a context that it is given,
        and keeps it if that one has another by the time of the next.
        """
        naming = self._naming
        naming.set_session_id(name)
        take_session_context(self, naming)
        naming.set_session_id(SESSION_CONTEXT)

    def _resume_nothing(self) -> None:
        self.set_options(SSL.OP_NO_TICKET)


@lru_cache(maxsize=1024)
def _session_context(raw: bytes | None, unnamed: str) -> bytes:
    """For a name as it was asked for, a context of at most 32 octets. Names that are none are served as if none was said."""
    name = raw.removesuffix(b".").lower() if raw else b"\0" + unnamed.encode()
    return hashlib.sha256(name).digest()


def handshake_of(connection: SSL.Connection) -> Handshake:
    """A connection's; an empty one of a connection that is none of ours."""
    return connection.handshake if isinstance(connection, ServerConnection) else Handshake()


def set_name_callback(context: BaseContext, choose: Callable[[SSL.Connection], None]) -> None:
    """Have `choose` called with each connection once its ClientHello is read; it may raise Refused."""

    def called(connection: SSL.Connection) -> int | None:
        try:
            choose(connection)
        except Refused as refused:
            return refused.alert
        except Exception:
            sys.excepthook(*sys.exc_info())
            return INTERNAL_ERROR
        return None

    context.name_callback = set_server_name_callback(context, called)


def select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """OpenSSL's callback for ALPN: ours in our order. Raises: NoApplicationProtocol, which sends its alert."""
    ours = handshake_of(connection).protocols
    if not ours:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    for name in ours:
        if name in offered:
            return name
    raise NoApplicationProtocol(offered)


def demand_certificate(connection: SSL.Connection, demand: Demand) -> None:
    """In the callback of the server name: ask the client for a certificate. Raises: Refused.

    A session that is being resumed has shown none, or to another name: it cannot give what is required here.
    """
    handshake_of(connection).demand = demand
    if demand.certificates == "none":
        return
    if is_resumed(connection) and demand.certificates == "required":
        handshake_of(connection).fault = NONE_SHOWN
        modern = connection.get_protocol_version() == SSL.TLS1_3_VERSION
        raise Refused(CERTIFICATE_REQUIRED if modern else HANDSHAKE_FAILURE)
    connection.set_options(SSL.OP_NO_TICKET)
    required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if demand.certificates == "required" else 0
    connection.set_verify(SSL.VERIFY_PEER | required, _verify)


def _verify(connection: SSL.Connection, certificate: crypto.X509, error: int, _depth: int, good: int) -> bool:
    """OpenSSL's verdict on each certificate of the chain. Where one is only asked for, a bad one counts as none."""
    handshake = handshake_of(connection)
    if not good:
        handshake.fault = handshake.fault or verification_fault(error, certificate.to_cryptography())
    return bool(good) or handshake.demand.certificates == "asked"


def verified_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    """After the handshake: the client's certificate, if it was asked for, shown here and verified."""
    handshake = handshake_of(connection)
    if handshake.demand.certificates == "none" or handshake.fault or is_resumed(connection):
        return None
    return connection.get_peer_certificate(as_cryptography=True)


def openssl_words(error: SSL.Error) -> str:
    """What OpenSSL says, without its places in its own source."""
    reasons = [str(entry[-1]) for entry in (error.args[0] if error.args else ()) if isinstance(entry, tuple)]
    return "; ".join(reasons) or type(error).__name__


def failure_words(connection: SSL.Connection, reason: str) -> str:
    """Why a handshake failed, for the administrator; `reason` is what OpenSSL says."""
    if fault := handshake_of(connection).fault:
        return fault
    if "peer did not return a certificate" in reason:
        return NONE_SHOWN
    advice = next((advice for words, advice in _ADVICE.items() if words in reason), "")
    return f"{reason}: {advice}" if advice else reason
