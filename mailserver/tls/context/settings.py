"""OpenSSL settings: the presets, the values of [tls] and of each listener, and their validation.

OpenSSL decides which settings can depend on the server name. When it reads the name the version is already negotiated, and
the TLS 1.3 suites, groups, cipher order and tickets are those of the base context. So these belong to [tls] and to
[[listener]]. The TLS 1.2 suites follow the name, and a name's minimum version is enforced after the choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal

from attrs import frozen
from OpenSSL import SSL

from mailserver.config.kinds import Preset, TlsVersion
from mailserver.config.model import Config, Listener, Tls
from mailserver.tls.context.private_names import set_groups

VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_NOT_CBC: Final = re.compile(r"GCM|CHACHA20|CCM")
_NEVER: Final = re.compile(r"ADH|AECDH|PSK|SRP|.*(?:NULL|RC4|DES|RC2|IDEA|SEED|MD5|EXP)")
_FORWARD_SECRET: Final = re.compile(r"TLS_|ECDHE-|DHE-")
_SEPARATORS: Final = re.compile(r"[:, ]+")
_BETWEEN_GROUPS: Final = re.compile(r"[:/]")
_OF_1_3: Final = re.compile(r"MLKEM|ffdhe", re.IGNORECASE)
"""Groups that TLS 1.2 lacks."""


@frozen
class Settings:
    """The settings of one base context."""

    minimum_version: TlsVersion
    maximum_version: TlsVersion
    ciphers: str
    """TLS 1.2 suites; a domain may have its own."""
    ciphersuites: str
    """TLS 1.3 suites."""
    groups: str
    cipher_order: Literal["client", "server"]
    tickets: bool


_SUITES: Final = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
_GROUPS: Final = "?X25519MLKEM768:X25519:P-256:P-384"

PRESETS: Final[dict[Preset, Settings]] = {
    "modern": Settings(
        minimum_version="1.2",
        maximum_version="1.3",
        ciphers="ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL",
        ciphersuites=_SUITES,
        groups=_GROUPS,
        # All suites are strong, so the client's order applies: a phone without AES in hardware prefers ChaCha20.
        cipher_order="client",
        tickets=True,
    ),
    "old-devices": Settings(
        minimum_version="1.2",
        maximum_version="1.3",
        ciphers="ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:-AESCCM:!aNULL:!eNULL:!PSK:!SRP",
        ciphersuites=_SUITES,
        groups=_GROUPS,
        # The weak suites at the end are for clients without better ones.
        cipher_order="server",
        tickets=True,
    ),
}


def settings_of(tls: Tls, listener: Listener | None = None) -> Settings:
    """Return the settings of a listener, else of [tls], else of the preset, for each key."""
    preset = PRESETS[tls.preset]

    def chosen(name: str) -> object:
        for table in (listener, tls):
            value = getattr(table, name, None)
            if value is not None:
                return value
        return getattr(preset, name)

    return Settings(**{name: chosen(name) for name in Settings.__annotations__})  # type: ignore[arg-type]


def settings_of_listeners(config: Config, tls: Tls) -> dict[Listener, Settings]:
    """Return the listeners whose settings differ from [tls]."""
    found = {listener: settings_of(tls, listener) for listener in config.listeners}
    return {listener: settings for listener, settings in found.items() if settings != settings_of(tls)}


def setting_faults(config: Config) -> Iterator[tuple[str, str, object, str]]:
    """Yield table, key, value and fault of the invalid settings of [tls] and of each listener."""
    seen = set()
    places: list[tuple[str, Listener | None]] = [("[tls]", None)]
    places += [(listener.place, listener) for listener in config.listeners]
    for place, listener in places:
        settings = settings_of(config.tls, listener)
        for name, reason in _faults(settings, config.tls.preset):
            table = listener if listener is not None and getattr(listener, name, None) is not None else None
            fault = (place if table is not None else "[tls]", name, getattr(settings, name), reason)
            if fault not in seen:
                seen.add(fault)
                yield fault
        for domain in config.domains:
            least = domain.minimum_version
            if least is not None and listener is not None and least > settings.maximum_version:
                owner = "[tls]" if listener.maximum_version is None else listener.place
                reason = f"is above maximum_version of {owner}: no client could reach {domain.name} there"
                fault = (domain.place, "minimum_version", least, reason)
                if fault not in seen:
                    seen.add(fault)
                    yield fault
    for domain in config.domains:
        least = domain.minimum_version
        if least is not None and least < settings_of(config.tls).minimum_version:
            reason = "is below that of [tls], which a name cannot lower"
            yield (domain.place, "minimum_version", least, reason)


def _faults(settings: Settings, preset: Preset) -> Iterator[tuple[str, str]]:
    if settings.minimum_version > settings.maximum_version:
        yield "maximum_version", f'must not be below minimum_version, which is "{settings.minimum_version}"'
    yield from (("ciphers", reason) for reason in cipher_faults(settings.ciphers, preset, settings.minimum_version))
    suites = _SEPARATORS.split(settings.ciphersuites)
    unknown = [word for word in suites if not _is_suite(word)]
    yield from (("ciphersuites", f"OpenSSL knows no suite {word!r} of TLS 1.3") for word in unknown)
    if not unknown and set(suites).isdisjoint(_SUITES.split(":")):
        yield (
            "ciphersuites",
            f"must name one of {_SUITES}: clients that know TLS 1.3 know these, and then try no older one",
        )
    try:
        set_groups(SSL.Context(SSL.TLS_SERVER_METHOD), settings.groups)
    except ValueError:
        yield "groups", "OpenSSL knows no such groups"
    else:
        if settings.minimum_version == "1.2" and all(map(_OF_1_3.search, _BETWEEN_GROUPS.split(settings.groups))):
            yield "groups", 'names no group of TLS 1.2, such as X25519; say minimum_version = "1.3" instead'


def cipher_faults(ciphers: str, preset: Preset, minimum_version: TlsVersion = "1.2") -> Iterator[str]:
    """Yield the faults of a list of TLS 1.2 suites."""
    words = _SEPARATORS.split(ciphers)
    # OpenSSL accepts a list if it knows one of its words, and silently ignores the others.
    unknown = [word for word in words if word[:1] not in ("!", "-", "@") and not _suites(word.lstrip("+"))]
    if unknown:
        of_1_3 = "; TLS 1.3 suites belong in ciphersuites of [tls] or a [[listener]]"
        yield f"OpenSSL knows no cipher suites {unknown[0]!r}{of_1_3 if unknown[0].startswith('TLS_') else ''}"
        return
    if any(word.startswith("@SECLEVEL") for word in words):
        yield "must not change OpenSSL's security level"
        return
    suites = _suites(ciphers)
    never = [suite for suite in suites if _NEVER.match(suite)]
    cbc = [suite for suite in suites if not _NOT_CBC.search(suite)]
    static = [suite for suite in suites if not _FORWARD_SECRET.match(suite)]
    old = 'or say preset = "old-devices" in [tls]'
    if never:
        yield f"must name authenticated suites that are safe, not {never[0]}"
    elif cbc and preset != "old-devices":
        yield f"must name authenticated suites without CBC, not {cbc[0]}; {old}"
    elif static and preset != "old-devices":
        yield f"must name suites with forward secrecy (ECDHE), not {static[0]}; {old}"
    elif minimum_version == "1.2" and not suites:
        yield 'names no suite of TLS 1.2; say minimum_version = "1.3" instead'


@lru_cache(maxsize=256)
def key_types_of(ciphers: str, preset: Preset) -> frozenset[str]:
    """Return the key types, RSA and ECDSA, that a list of TLS 1.2 suites supports; none for an invalid list."""
    if any(cipher_faults(ciphers, preset)):
        return frozenset()
    return frozenset("ECDSA" if "ECDSA" in suite else "RSA" for suite in _suites(ciphers))


def _suites(ciphers: str) -> list[str]:
    """Expand a list to TLS 1.2 suites."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        context.set_cipher_list(ciphers.encode())
    except SSL.Error:
        return []
    return [suite for suite in SSL.Connection(context, None).get_cipher_list() if not suite.startswith("TLS_")]


def _is_suite(name: str) -> bool:
    try:
        SSL.Context(SSL.TLS_SERVER_METHOD).set_tls13_ciphersuites(name.encode())
    except SSL.Error:
        return False
    return name.startswith("TLS_")


def apply_settings(context: SSL.Context, settings: Settings) -> None:
    """Apply settings to a new context."""
    context.set_min_proto_version(VERSIONS[settings.minimum_version])
    context.set_max_proto_version(VERSIONS[settings.maximum_version])
    context.set_cipher_list(settings.ciphers.encode())
    context.set_tls13_ciphersuites(settings.ciphersuites.encode())
    set_groups(context, settings.groups)
    options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
    if settings.cipher_order == "server":
        options |= SSL.OP_CIPHER_SERVER_PREFERENCE
    if not settings.tickets:
        options |= SSL.OP_NO_TICKET
    context.set_options(options)
