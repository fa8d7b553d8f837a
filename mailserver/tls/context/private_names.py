"""The private names of pyOpenSSL that correct service needs, with any transport. No other module uses one of these.

pyOpenSSL has no public call for what is done here; its bindings have. `missing()` says what an installed version lacks: the
server then refuses to start (`mailserver.problems`), because the alternative is a wrong certificate, a session that is
resumed under another name, or a password that is bound to the wrong connection.

`mailserver.net.fast` has the private names that only make the server faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import OpenSSL
from OpenSSL import SSL

# ruff: noqa: SLF001

NAMES_OF_LIB: Final = (
    "ERR_get_error",
    "SSL_CTX_set1_curves_list",
    "SSL_CTX_set_tlsext_servername_callback",
    "SSL_TLSEXT_ERR_ALERT_FATAL",
    "SSL_get_extms_support",
    "SSL_session_reused",
    "SSL_set_SSL_CTX",
    "X509_verify_cert_error_string",
)
"""Of the bindings, `OpenSSL._util.lib`."""
NAMES_OF_FFI: Final = ("callback", "string")
"""Of `OpenSSL._util.ffi`."""

_util: Any = getattr(OpenSSL, "_util", None)
_lib: Any = getattr(_util, "lib", None)
_ffi: Any = getattr(_util, "ffi", None)

ServerNameCallback = Callable[[SSL.Connection], int | None]
"""Returns the alert that ends the handshake, or None."""


def missing() -> list[str]:
    """Return the names that the installed pyOpenSSL lacks."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    connection = SSL.Connection(context, None)
    needed = [
        *((_lib, "OpenSSL._util.lib", name) for name in NAMES_OF_LIB),
        *((_ffi, "OpenSSL._util.ffi", name) for name in NAMES_OF_FFI),
        (context, "OpenSSL.SSL.Context", "_context"),
        (connection, "OpenSSL.SSL.Connection", "_ssl"),
        (SSL.Connection, "OpenSSL.SSL.Connection", "_reverse_mapping"),
    ]
    return [f"{owner}.{name}" for thing, owner, name in needed if not hasattr(thing, name)]


def set_server_name_callback(context: SSL.Context, choose: ServerNameCallback) -> object:
    """Have `choose` called with each connection once its ClientHello is read.

    pyOpenSSL's own call knows one alert only. The caller must keep what is returned for as long as the context.
    """

    def called(ssl: Any, alert: Any, _argument: Any) -> int:
        refused = choose(SSL.Connection._reverse_mapping[ssl])
        if refused is None:
            return 0
        alert[0] = refused
        return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)

    callback: object = _ffi.callback("int (*)(SSL *, int *, void *)", called)
    _lib.SSL_CTX_set_tlsext_servername_callback(context._context, callback)
    return callback


def take_session_context(connection: SSL.Connection, context: SSL.Context) -> None:
    """Give a connection another context without holding on to it, as pyOpenSSL's `set_context` would."""
    _lib.SSL_set_SSL_CTX(connection._ssl, context._context)


def is_resumed(connection: SSL.Connection) -> bool:
    """Does the connection go on with the session of an earlier one? Known in the callback of the server name already."""
    return bool(_lib.SSL_session_reused(connection._ssl))


def has_extended_master_secret(connection: SSL.Connection) -> bool:
    """Was the extended master secret (RFC 7627) agreed on?"""
    return bool(_lib.SSL_get_extms_support(connection._ssl))


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set the groups of the key exchange. Raises: ValueError."""
    if not _lib.SSL_CTX_set1_curves_list(context._context, groups.encode()):
        while _lib.ERR_get_error():
            pass  # What a later call would take for its own error.
        raise ValueError(f"not groups: {groups!r}")


def verification_error(number: int) -> str:
    """Return OpenSSL's words for an error of certificate verification."""
    words: bytes = _ffi.string(_lib.X509_verify_cert_error_string(number))
    return words.decode()
