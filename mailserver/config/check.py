"""Checks of the values of a configuration together. A new check is a function in CHECKS.

Nothing is opened here: `tls.serving.validation` checks certificates, the back end checks its users file, `directories`
checks directories, and `pop3.uidl` checks its format. Places and values are written as in `load`.
"""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import pwd
import re
import string
from collections.abc import Callable, Iterator
from typing import Final

from mailserver.config import check_listeners, check_names
from mailserver.config.model import BackendUse, Config, Problem
from mailserver.config.values import as_toml, nearest

_SPECIAL_USES: Final = ("All", "Archive", "Drafts", "Flagged", "Junk", "Sent", "Trash")
_LOCATION_FIELDS: Final = ("root", "user", "local", "domain", "home")
_BACKEND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SEPARATORS: Final = "*%#!|~^&$="
"""Characters that divide names. Others stand in many names of users, or are refused in all."""
_SEPARATOR: Final = re.compile(f"[{re.escape(_SEPARATORS)}]")
_LOCAL_BACKENDS: Final = ("directory", "file", "virtual")

_MINIMA: Final = (
    ("imap", "timeout", 1800, "RFC 3501 5.4"),
    ("imap", "max_line", 8192, "RFC 7162 4"),
    ("imap", "metadata_entries", 10, "RFC 5464 4.1"),
    ("imap", "metadata_size", 1024, "RFC 5464 4.1"),
    ("pop3", "timeout", 600, "RFC 1939 3"),
    ("submission", "timeout", 300, "RFC 5321 4.5.3.2.7"),
    ("submission", "max_recipients", 100, "RFC 5321 4.5.3.1.8"),
    ("lmtp", "timeout", 300, "RFC 5321 4.5.3.2.7"),
    ("lmtp", "max_recipients", 100, "RFC 5321 4.5.3.1.8"),
    ("mail", "max_message_size", 65536, "RFC 5321 4.5.3.1.7"),
    ("limits", "mailboxes_per_user", 100, "a new account has several folders"),
)
"""Table, key, minimum, and the RFC or reason for it."""


_MOST_METADATA_SIZE: Final = 65536
_LEAST_MESSAGE_LIMIT: Final = 1000
_MOST_ID_FIELDS, _LONGEST_ID_FIELD, _LONGEST_ID_VALUE = 30, 30, 1024


def check(config: Config, *, partial: frozenset[str] = frozenset()) -> list[Problem]:
    """Find every contradiction.

    `partial`: arrays of tables ("domain", "listener") with elements that could not be read. Checks that need all elements
    are skipped for these.
    """
    return [problem for find in CHECKS for problem in find(config, partial)]


def _required_tables(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    if not config.listeners and "listener" not in partial:
        yield config.problem("[listener]", "", "at least one [[listener]] is needed")
    if not config.domains and "domain" not in partial:
        secured = next((listener for listener in config.listeners if listener.cleartext != "always"), None)
        why = f": {secured.place} {secured.protocol} needs a certificate for TLS" if secured else ""
        yield config.problem("[domain]", "", f"at least one [[domain]] is needed{why}")


def _mail(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    mail = config.mail
    yield from (config.problem("[mail] location", as_toml(mail.location), *why) for why in _location(config))
    for use, names in mail.special_use.items():
        if use not in _SPECIAL_USES:
            near = nearest(use, _SPECIAL_USES)
            yield config.problem("[mail] special_use", as_toml(use), f"must be one of {', '.join(_SPECIAL_USES)}", near)
        if not names:
            yield config.problem("[mail] special_use", as_toml(use), "needs the name of a folder; remove it otherwise")
        for folder in names:
            if reason := _not_a_folder(folder, config):
                yield config.problem("[mail] special_use", as_toml(folder), reason)
    folders = [folder for names in mail.special_use.values() for folder in names]
    for folder in sorted({folder for folder in folders if folders.count(folder) > 1}):
        uses = sum(folder in names for names in mail.special_use.values())
        reason = "two special uses have the same folder" if uses > 1 else "is listed twice"
        yield config.problem("[mail] special_use", as_toml(folder), reason)
    yield from _names(mail.separator, mail.prefix, mail.escape, config)


def _quota(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    for percent in config.quota.warnings:
        if percent > 100:
            yield config.problem("[quota] warnings", str(percent), "must be a percentage, at most 100")


def _not_a_folder(folder: str, config: Config) -> str:
    """The reason why a new account cannot have such a folder; "" if it can. Names as clients see them, without the prefix."""
    mail = config.mail
    levels = folder.split(mail.separator)
    if mail.prefix and folder.startswith(mail.prefix):
        return f"must be written without the prefix {as_toml(mail.prefix)}"
    if not all(levels) or folder.upper() == "INBOX" or any(level in (".", "..") for level in levels):
        return "must be the name of a folder other than INBOX"
    other = "." if mail.separator == "/" else "/"
    if not mail.escape and (other in folder or folder.startswith("~")):
        return f"must not contain {as_toml(other)} or begin with ~ without escape; the separator is {as_toml(mail.separator)}"
    return ""


def _names(separator: str, prefix: str, escape: str, config: Config) -> Iterator[Problem]:
    place, shown = "[mail] prefix", as_toml(prefix)
    other = "." if separator == "/" else "/"
    if any(character in prefix for character in "*%"):
        yield config.problem(place, shown, "must not contain * or %")
    if other in prefix and not prefix.endswith(separator):
        # As in a namespace of Dovecot: `prefix = INBOX.` needs `separator = .`.
        reason = f"must end in the separator, {as_toml(separator)}; or set separator = {as_toml(other)}"
        yield config.problem(place, shown, reason, prefix.replace(other, separator))
    elif prefix and not all(prefix.removesuffix(separator).split(separator)):
        yield config.problem(place, shown, "has an empty level")
    elif prefix.startswith("~"):
        yield config.problem(place, shown, "must not begin with ~")
    if escape and (len(escape) > 1 or not escape.isascii() or escape.isalnum() or escape in " ./~"):
        reason = "must be one ASCII character other than a letter, digit, space, dot, slash or ~, or empty"
        yield config.problem("[mail] escape", as_toml(escape), reason)


def _location(config: Config) -> Iterator[tuple[str, str]]:
    location = config.mail.location
    try:
        parts = list(string.Formatter().parse(location))
    except ValueError:
        yield "has an unbalanced brace", ""
        return
    fields = {field for _text, field, _spec, _conversion in parts if field is not None}
    if any(spec or conversion for _text, _field, spec, conversion in parts):
        yield "must have plain fields only, such as {local}", ""
        return
    for field in sorted(fields - set(_LOCATION_FIELDS)):
        near = nearest(field, _LOCATION_FIELDS)
        listed = ", ".join(f"{{{name}}}" for name in _LOCATION_FIELDS)
        yield f"{{{field}}} is not a field; the fields are {listed}", f"{{{near}}}" if near else ""
    if not location.startswith(("/", "{root}", "{home}")):
        yield "must begin with /, {root} or {home}", ""
    if ".." in location.split("/"):
        yield "must not contain ..", ""
    if not fields & {"user", "local", "home"}:
        yield "must contain {user}, {local} or {home}: accounts would share one Maildir", ""
    elif not fields & {"user", "domain", "home"} and len(config.domains) > 1:
        yield "must contain {user}, {domain} or {home}: users of two domains would share one Maildir", ""


def _imap(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    """RFC 2971 3.3 bounds an ID, RFC 9738 3 the limits; a rule that hides nothing is a slip."""
    fields = config.imap.id
    if len(fields) > _MOST_ID_FIELDS:
        yield config.problem("[imap] id", "", f"must have at most {_MOST_ID_FIELDS} fields (RFC 2971 3.3)")
    for name, values in fields.items():
        value = " ".join(values)
        if not name or len(name.encode()) > _LONGEST_ID_FIELD:
            reason = f"a field's name has 1 to {_LONGEST_ID_FIELD} octets (RFC 2971 3.3)"
            yield config.problem("[imap] id", as_toml(name), reason)
        if len(value.encode()) > _LONGEST_ID_VALUE or not (name + value).isprintable():
            reason = f"a field has printable text of at most {_LONGEST_ID_VALUE} octets (RFC 2971 3.3)"
            yield config.problem("[imap] id", as_toml(value), reason)
    if config.imap.metadata_size > _MOST_METADATA_SIZE:
        reason = f"must be at most {_MOST_METADATA_SIZE}"
        yield config.problem("[imap] metadata_size", as_toml(config.imap.metadata_size), reason)
    for key, limit in (("message_limit", config.imap.message_limit), ("save_limit", config.imap.save_limit)):
        if 0 < limit < _LEAST_MESSAGE_LIMIT:
            reason = f"must be 0, or at least {_LEAST_MESSAGE_LIMIT} (RFC 9738 3)"
            yield config.problem(f"[imap] {key}", str(limit), reason)
    if config.imap.message_limit and config.imap.save_limit:
        reason = "must be 0 with message_limit, which limits COPY and APPEND, too (RFC 9738 3)"
        yield config.problem("[imap] save_limit", str(config.imap.save_limit), reason)
    for number, rule in enumerate(config.imap.hide, 1):
        if not rule.capabilities:
            place = f"[imap.hide {number}] capabilities"
            yield config.problem(place, "[]", "needs at least one; remove the table otherwise")


def _auth(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    auth = config.auth
    if not auth.backends:
        yield config.problem("[auth] backends", "[]", 'needs at least one, such as "file:/etc/mailserver/users"')
    for number, backend in enumerate(auth.backends, 1):
        if not _BACKEND.fullmatch(backend.name):
            # It may be a password: it is not shown.
            yield config.problem("[auth] backends", "", f"number {number} must be NAME:ARGUMENT")
        elif backend.name in _LOCAL_BACKENDS and backend != BackendUse(backend.use, backend.domains):
            reason = f"{backend.name} answers at once, from this machine: of the settings it can have domains alone"
            yield config.problem("[auth] backends", "", reason)
    if auth.master_separator and not _SEPARATOR.fullmatch(auth.master_separator):
        yield config.problem(
            "[auth] master_separator",
            as_toml(auth.master_separator),
            f"must be empty or one of {' '.join(_SEPARATORS)}",
            "*",
        )
    if not auth.mechanisms:
        yield config.problem("[auth] mechanisms", "[]", "needs at least one, such as PLAIN")
    elif not partial & {"domain", "listener"}:
        yield from _without_mechanism(config)
    domains: list[str] = [domain.name for domain in config.domains]
    if auth.default_domain and auth.default_domain not in domains and "domain" not in partial:
        near = nearest(auth.default_domain, domains)
        yield config.problem(
            "[auth] default_domain", as_toml(auth.default_domain), "must be the name of a [[domain]]", near
        )
    if auth.failure_delay_max < auth.failure_delay:
        yield config.problem(
            "[auth] failure_delay_max", f"{auth.failure_delay_max:g}", "must not be below failure_delay"
        )


def _without_mechanism(config: Config) -> Iterator[Problem]:
    """Protocols for which no mechanism could be offered."""
    mechanisms, of_scram = config.auth.mechanisms, config.auth.scram_protocols
    scram = any(name.startswith("SCRAM-") for name in mechanisms)
    certificates = "EXTERNAL" in mechanisms and any(
        domain.client_certificates != "none" and domain.client_user != "any" for domain in config.domains
    )
    if certificates or any(name != "EXTERNAL" and not name.startswith("SCRAM-") for name in mechanisms):
        return
    if not scram:
        reason = "can never be offered: no [[domain]] has client_certificates that name a user; add PLAIN, or set client_certificates there"
        yield config.problem("[auth] mechanisms", as_toml(mechanisms), reason)
        return
    served = {listener.family for listener in config.listeners} & {"imap", "pop3", "submission"}
    for protocol in sorted(served.difference(of_scram)):
        reason = f'leaves {protocol} without a mechanism: add "{protocol}", or PLAIN to mechanisms'
        yield config.problem("[auth] scram_protocols", as_toml(of_scram), reason)


def _minima(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    for table, key, least, source in _MINIMA:
        value = getattr(getattr(config, table), key)
        if value < least:
            yield config.problem(f"[{table}] {key}", f"{value:g}", f"must be at least {least} ({source})")
    if 1800 <= config.imap.timeout <= config.imap.idle_notice:
        yield config.problem("[imap] idle_notice", f"{config.imap.idle_notice:g}", "must be below timeout")


def _relay(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    relay = config.submission.relay
    if relay is None:
        return
    loopback = relay.host == "localhost"
    # Of names that are not addresses only localhost is known to be this machine.
    with contextlib.suppress(ValueError):
        loopback = loopback or ipaddress.ip_address(relay.host).is_loopback
    if relay.tls == "none" and not loopback:
        yield config.problem("[submission.relay] tls", '"none"', "is allowed only to localhost or a loopback address")
    if relay.tls == "none" and relay.ca_file is not None:
        yield config.problem("[submission.relay] ca_file", "", 'has no effect with tls = "none"')
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if getattr(relay, name) is not None and getattr(relay, other) is None:
            yield config.problem(f"[submission.relay] {other}", "", f"is missing; {name} needs it")
    if relay.key_password_file is not None and relay.key is None:
        yield config.problem("[submission.relay] key_password_file", "", "has no effect without certificate and key")
    if relay.verification == "none" and relay.ca_file is not None:
        reason = 'has no effect with verification = "none"'
        yield config.problem("[submission.relay] ca_file", as_toml(relay.ca_file), reason)
    if relay.user and relay.password_file is None:
        yield config.problem("[submission.relay] password_file", "", "is missing; user needs it")
    if relay.password_file is not None and not relay.user:
        yield config.problem("[submission.relay] user", "", "is missing; password_file needs it")


def _lmtp(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    separator = config.lmtp.detail_separator
    if separator and (len(separator) > 1 or not separator.isascii() or separator.isalnum() or separator in ' "@\\'):
        reason = "must be one character other than a letter, digit, space, quote or @, or empty"
        yield config.problem("[lmtp] detail_separator", as_toml(separator), reason)


def _system_user(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    server = config.server
    if not server.user and os.geteuid() == 0:
        yield config.problem(
            "[server] user", "", 'is missing; a service started as root needs it, even if it is "root"'
        )
    if server.user:
        try:
            pwd.getpwnam(server.user)
        except KeyError:
            yield config.problem("[server] user", as_toml(server.user), "no such user on this machine")
    if server.group:
        try:
            grp.getgrnam(server.group)
        except KeyError:
            yield config.problem("[server] group", as_toml(server.group), "no such group on this machine")


CHECKS: Final[tuple[Callable[[Config, frozenset[str]], Iterator[Problem]], ...]] = (
    _system_user,
    _required_tables,
    check_names.domains,
    check_names.tls,
    check_listeners.listeners,
    check_listeners.duplicate_ports,
    _mail,
    _quota,
    _auth,
    _imap,
    _minima,
    _relay,
    _lmtp,
    check_names.acme,
)
