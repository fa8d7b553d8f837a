"""Checks of listeners, each by itself and together."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
from collections.abc import Iterator

import attrs

from mailserver.config.kinds import SOCKET_ONLY
from mailserver.config.model import Config, Listener, Problem
from mailserver.config.values import as_toml


def listeners(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    """Check each listener by itself."""
    for listener in config.listeners:
        place = listener.place
        if listener.socket is not None:
            if listener.port is not None:
                yield config.problem(f"{place} port", str(listener.port), "a listener has a port or a socket, not both")
            if listener.addresses:
                yield config.problem(f"{place} addresses", "", "a Unix socket has no addresses")
            if listener.implicit_tls:
                plain = listener.protocol[:-1]
                yield config.problem(
                    f"{place} protocol",
                    as_toml(listener.protocol),
                    "implicit TLS is not supported on a Unix socket",
                    plain,
                )
        elif listener.protocol in SOCKET_ONLY:
            key, value = ("port", str(listener.port)) if listener.port is not None else ("socket", "")
            reason = f'{listener.protocol} is for Unix sockets alone: set socket = "/run/mailserver/{listener.protocol}", say'
            yield config.problem(f"{place} {key}", value, reason)
        yield from _socket_rights(config, listener)
        if listener.trusted_authentication_results and listener.protocol != "lmtp":
            reason = "is for lmtp only: header fields of submitted messages are never trusted"
            yield config.problem(f"{place} trusted_authentication_results", "true", reason)
        if listener.client_address != "optional" and listener.protocol != "auth":
            reason = "is for auth only: elsewhere the client is the one that connects"
            yield config.problem(f"{place} client_address", as_toml(listener.client_address), reason)
        if len(set(listener.addresses)) < len(listener.addresses):
            yield config.problem(f"{place} addresses", "", "lists an address twice")
        yield from _ssl(config, listener)
        if listener.allow_cleartext:
            yield from _cleartext(config, listener)
        if listener.require_tls and listener.protocol != "lmtp":
            reason = "is for lmtp only: elsewhere passwords need TLS anyway"
            yield config.problem(f"{place} require_tls", "true", reason)
        if listener.default is not None and not listener.implicit_tls and not listener.starttls:
            reason = f"is for listeners with TLS; this listener of {listener.protocol} has none"
            yield config.problem(f"{place} default", as_toml(listener.default), reason)
        if listener.greeting_delay and not listener.starttls:
            reason = f"is for listeners with STARTTLS; this listener of {listener.protocol} has none"
            yield config.problem(f"{place} greeting_delay", f"{listener.greeting_delay:g}", reason)
        if listener.early_tls != "serve" and not listener.greeting_delay:
            reason = "has no effect without greeting_delay, such as 0.1"
            yield config.problem(f"{place} early_tls", as_toml(listener.early_tls), reason)


def _socket_rights(config: Config, listener: Listener) -> Iterator[Problem]:
    """Check the socket keys, and that their users and groups exist."""
    place = listener.place
    for key in ("socket_mode", "socket_owner", "socket_group"):
        value = getattr(listener, key)
        if listener.socket is None and value != getattr(attrs.fields(Listener), key).default:
            yield config.problem(f"{place} {key}", as_toml(value), "is for a Unix socket, and this listener has a port")
    if listener.socket_owner:
        try:
            pwd.getpwnam(listener.socket_owner)
        except KeyError:
            reason = "no such user on this machine"
            yield config.problem(f"{place} socket_owner", as_toml(listener.socket_owner), reason)
    if listener.socket_group:
        try:
            grp.getgrnam(listener.socket_group)
        except KeyError:
            reason = "no such group on this machine"
            yield config.problem(f"{place} socket_group", as_toml(listener.socket_group), reason)


def _ssl(config: Config, listener: Listener) -> Iterator[Problem]:
    """Check Dovecot's keys by themselves and against the others."""
    place, ssl = f"{listener.place} ssl", listener.ssl
    clear = f"{listener.place} auth_allow_cleartext"
    if ssl is not None and (listener.family == "http" or listener.protocol in SOCKET_ONLY):
        what = "TLS" if listener.protocol in SOCKET_ONLY else "logins"
        yield config.problem(
            place, as_toml(ssl), f"is for listeners where users log in; {listener.protocol} has no {what}"
        )
    elif ssl == "no" and listener.implicit_tls:
        reason = f"{listener.protocol} has implicit TLS: remove this listener"
        yield config.problem(place, as_toml(ssl), reason)
    elif ssl == "required" and listener.protocol == "lmtp":
        yield config.problem(place, as_toml(ssl), "is for logins, and lmtp has none: use require_tls = true")
    if ssl == "no" and listener.require_tls:
        yield config.problem(f"{listener.place} require_tls", "true", 'has no effect with ssl = "no"')
    if ssl is not None and listener.allow_cleartext:
        reason = "cannot be combined with ssl: use auth_allow_cleartext"
        yield config.problem(f"{listener.place} allow_cleartext", "true", reason, "auth_allow_cleartext")
    if not listener.auth_allow_cleartext:
        return
    if (why := _no_passwords(listener)) is not None:
        yield config.problem(clear, "true", why)
    elif ssl is None:
        reason = 'needs ssl = "yes" or "no"; on loopback use allow_cleartext'
        yield config.problem(clear, "true", reason)
    elif ssl == "required":
        yield config.problem(clear, "true", 'has no effect with ssl = "required"')
    elif not listener.is_loopback:
        reason = "passwords can be read on the network: have the clients use TLS, and remove this key"
        yield config.problem(clear, "true", reason, warning=True)


def _cleartext(config: Config, listener: Listener) -> Iterator[Problem]:
    place = f"{listener.place} allow_cleartext"
    if (reason := _no_passwords(listener)) is not None:
        yield config.problem(place, "true", reason)
    elif not listener.is_loopback:
        reason = 'is allowed only with loopback addresses, such as ["127.0.0.1", "::1"], or a Unix socket'
        yield config.problem(place, "true", reason)


def _no_passwords(listener: Listener) -> str | None:
    """The reason why a listener takes no passwords in clear text; None if it may."""
    if listener.implicit_tls:
        return f"{listener.protocol} has implicit TLS"
    if listener.protocol == "auth":
        return "auth takes passwords as the other server has got them: whether they came by TLS is decided there"
    return f"{listener.protocol} carries no passwords" if listener.protocol in ("lmtp", "lookup", "http") else None


def duplicate_ports(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    """Find listeners with the same port or socket."""
    bound: dict[tuple[int, int], dict[str, Listener]] = {}
    sockets: dict[str, Listener] = {}
    for listener in config.listeners:
        if listener.socket is not None:
            path = os.path.normpath(listener.socket)
            if path in sockets:
                reason = f"is already the socket of {sockets[path].place}"
                yield config.problem(f"{listener.place} socket", as_toml(listener.socket), reason)
            sockets.setdefault(path, listener)
            continue
        if listener.protocol in SOCKET_ONLY:
            continue
        port = listener.tcp_port
        clash: tuple[str, Listener] | None = None
        for address in dict.fromkeys(listener.bind_addresses):
            family = ipaddress.ip_address(address).version
            others = bound.setdefault((family, port), {})
            # The wildcard address includes each address of its family; sockets for :: accept no IPv4.
            every = "0.0.0.0" if family == 4 else "::"  # noqa: S104 - compared, not bound
            same = next((other for other in others if address == other or every in (address, other)), None)
            if same is not None and clash is None:
                clash = (same, others[same])
            others.setdefault(address, listener)
        if clash is not None:
            reason = f"port {port} is already bound by {clash[1].place} on {clash[0]}"
            key, value = ("port", str(port)) if listener.port is not None else ("protocol", as_toml(listener.protocol))
            yield config.problem(f"{listener.place} {key}", value, reason)
