"""What the values of a configuration must be together. A new check is a function and a word in CHECKS.

Nothing is opened here: certificates are checked by `tls.certificates`, users files by their back end, directories by
`directories`. Places and words are those of `load`.
"""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import ipaddress
import os
import pwd
import re
import string
from collections.abc import Callable, Iterator
from typing import Final

from mailserver.config.model import AcmeDns, Config, Domain, Listener, Problem
from mailserver.config.values import as_toml, nearest

_SPECIAL_USES: Final = ("All", "Archive", "Drafts", "Flagged", "Junk", "Sent", "Trash")
_LOCATION_FIELDS: Final = ("root", "user", "local", "domain", "home")
_UIDL_FIELD: Final = re.compile(r"%(?:%|0?[0-9]{0,2}X?[uv])")
_BACKEND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_CONTACT: Final = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]+")

MAX_POLICY_AGE: Final = 31_557_600
"""Seconds of a year (RFC 8461 3.2)."""

_MINIMA: Final = (
    ("imap", "timeout", 1800, "RFC 3501 5.4"),
    ("imap", "max_line", 8192, "RFC 7162 4"),
    ("pop3", "timeout", 600, "RFC 1939 3"),
    ("submission", "timeout", 300, "RFC 5321 4.5.3.2.7"),
    ("submission", "max_recipients", 100, "RFC 5321 4.5.3.1.8"),
    ("lmtp", "timeout", 300, "RFC 5321 4.5.3.2.7"),
    ("lmtp", "max_recipients", 100, "RFC 5321 4.5.3.1.8"),
    ("mail", "max_message_size", 65536, "RFC 5321 4.5.3.1.7"),
    ("limits", "mailboxes_per_user", 100, "the folders of a new account have room"),
)
"""Table, key, least value, and the RFC or reason that says so."""


def check(config: Config, *, partial: frozenset[str] = frozenset()) -> list[Problem]:
    """Every contradiction.

    `partial` names the arrays of tables ("domain", "listener") of which some could not be read: what depends on all
    of them is then not judged.
    """
    return [problem for find in CHECKS for problem in find(config, partial)]


def is_loopback(listener: Listener) -> bool:
    """Can only programs of this machine reach it?"""
    return all(ipaddress.ip_address(address).is_loopback for address in listener.bind_addresses)


def _at(config: Config, place: str, value: str, reason: str, near: str = "", *, warning: bool = False) -> Problem:
    return Problem(str(config.source), place, value, reason, near, warning)


def _something_served(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    if not config.listeners and "listener" not in partial:
        yield _at(config, "[listener]", "", "at least one [[listener]] is needed")
    if not config.domains and "domain" not in partial:
        secured = next((listener for listener in config.listeners if not listener.allow_cleartext), None)
        why = f": {secured.place} {secured.protocol} needs a certificate for TLS" if secured else ""
        yield _at(config, "[domain]", "", f"at least one [[domain]] is needed{why}")


def _domains(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    names: dict[str, str] = {}
    hosts: dict[str, str] = {}
    for domain in config.domains:
        if domain.name in names:
            yield _at(
                config, f"{domain.place} name", as_toml(domain.name), f"is already the name of {names[domain.name]}"
            )
        names.setdefault(domain.name, domain.place)
        yield from _mta_sts(config, domain, partial)
        yield from _clients(config, domain)
    for certified in config.certified:
        if not certified.hosts:
            yield _at(config, f"{certified.place} hosts", "[]", "needs at least one host name")
        for host in certified.hosts:
            if host in hosts:
                yield _at(config, f"{certified.place} hosts", as_toml(host), f"is already a host of {hosts[host]}")
            hosts.setdefault(host, certified.place)
        yield from _acme_domain(config, certified)
        if certified.certificate is None and certified.key is not None:
            yield _at(config, f"{certified.place} certificate", "", "is missing; key needs it")
        if certified.key is None and certified.certificate is not None:
            yield _at(config, f"{certified.place} key", "", "is missing; certificate needs it")
        yield from _keys(config, certified)


def _mta_sts(config: Config, domain: Domain, partial: frozenset[str]) -> Iterator[Problem]:
    if len(set(domain.mx)) < len(domain.mx):
        yield _at(config, f"{domain.place} mx", as_toml(domain.mx), "names a host twice")
    policy, place = domain.mta_sts, f"{domain.place[:-1]}.mta_sts]"
    if policy is None:
        return
    if policy.mode != "none" and not domain.mx:
        yield _at(config, f"{place} mode", as_toml(policy.mode), "needs the hosts of mx in the [[domain]]")
    if policy.max_age > MAX_POLICY_AGE:
        reason = f"must be at most {MAX_POLICY_AGE} (RFC 8461 3.2)"
        yield _at(config, f"{place} max_age", str(policy.max_age), reason)
    if policy.mode != "none":
        yield from _policy_host(config, domain, place, partial)


def _policy_host(config: Config, domain: Domain, place: str, partial: frozenset[str]) -> Iterator[Problem]:
    """RFC 8461 3.3: who fetches the policy takes it over HTTPS alone, under a certificate of its host."""
    host = f"mta-sts.{domain.name}"
    if "listener" not in partial and not any(listener.protocol == "https" for listener in config.listeners):
        yield _at(config, place, "", "no [[listener]] of protocol https serves it", warning=True)
    if "domain" not in partial and not any(
        each in (host, f"*.{domain.name}") for certified in config.certified for each in certified.hosts
    ):
        reason = (
            f"{host} is no host of the [[domain]] or of a [[domain.site]]: who fetches it finds no good certificate"
        )
        yield _at(config, place, "", reason, warning=True)


def _keys(config: Config, domain: Domain) -> Iterator[Problem]:
    for name, other in (("second_certificate", "second_key"), ("second_key", "second_certificate")):
        if getattr(domain, name) is not None and getattr(domain, other) is None:
            yield _at(config, f"{domain.place} {other}", "", f"is missing; {name} needs it")
    if domain.certificate is None and domain.key is None:
        for name in ("second_certificate", "key_password_file", "key_password_command"):
            if getattr(domain, name):
                yield _at(config, f"{domain.place} {name}", "", "has no use without certificate and key")
    if domain.key_password_file is not None and domain.key_password_command:
        yield _at(
            config, f"{domain.place} key_password_command", "", "a key has a password's file or command, not both"
        )


def _clients(config: Config, domain: Domain) -> Iterator[Problem]:
    asked = domain.client_certificates
    if asked != "none" and domain.client_ca is None:
        yield _at(config, f"{domain.place} client_ca", "", f'is missing; client_certificates = "{asked}" needs it')
    for name in ("client_ca", "client_crl"):
        if asked == "none" and getattr(domain, name) is not None:
            reason = 'has no use unless client_certificates is "asked" or "required"'
            yield _at(config, f"{domain.place} {name}", as_toml(getattr(domain, name)), reason)


def _acme_domain(config: Config, domain: Domain) -> Iterator[Problem]:
    place = f"{domain.place} acme"
    if not domain.acme:
        return
    if domain.certificate is not None or domain.key is not None:
        yield _at(config, place, "true", "has no use beside certificate and key: take those out")
    if config.acme is None:
        yield _at(config, place, "true", 'needs a table [acme]; the least is terms_of_service = "agreed"')
    elif config.acme.dns is None:
        for host in domain.hosts:
            if host.startswith("*."):
                reason = f"{host} can only be proved by DNS: needs a table [acme.dns], or hosts without wildcards"
                yield _at(config, place, "true", reason)


def _acme(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    acme = config.acme
    if acme is None:
        return
    if importlib.util.find_spec("acme") is None:
        yield _at(config, "[acme]", "", "needs more packages: pip install 'mailserver[acme]'")
    if not acme.directory.startswith("https://"):
        yield _at(config, "[acme] directory", as_toml(acme.directory), "must begin with https:// (RFC 8555 6.1)")
    for contact in acme.contact:
        if not _CONTACT.fullmatch(contact):
            reason = "must be a URL, such as mailto:postmaster@example.org"
            yield _at(config, "[acme] contact", as_toml(contact), reason, f"mailto:{contact}" if "@" in contact else "")
    plain = any(listener.protocol == "http" for listener in config.listeners) or "listener" in partial
    if (
        acme.challenge == "http-01"
        and acme.webroot is None
        and not plain
        and any(each.acme for each in config.certified)
    ):
        reason = "needs a [[listener]] of protocol http, or a webroot"
        yield _at(config, "[acme] challenge", as_toml(acme.challenge), reason)
    if acme.challenge == "dns-01" and acme.dns is None:
        yield _at(config, "[acme] challenge", as_toml(acme.challenge), "needs a table [acme.dns]")
    if acme.challenge == "dns-01" and acme.webroot is not None:
        yield _at(config, "[acme] webroot", as_toml(acme.webroot), 'has no use with challenge = "dns-01"')
    if bool(acme.eab_key_id) != (acme.eab_key_file is not None):
        missing, other = ("eab_key_file", "eab_key_id") if acme.eab_key_id else ("eab_key_id", "eab_key_file")
        yield _at(config, f"[acme] {missing}", "", f"is missing; {other} needs it")
    if acme.dns is not None:
        yield from _acme_dns(config, acme.dns)


def _acme_dns(config: Config, dns: AcmeDns) -> Iterator[Problem]:
    # What stands there may hold a secret: it is not shown.
    if bool(dns.hook) == (dns.server is not None):
        yield _at(config, "[acme.dns] hook", "", "either a hook or a server is needed")
    if dns.hook and not dns.hook[0].startswith("/"):
        yield _at(config, "[acme.dns] hook", "", "must begin with the program's whole path")
    if bool(dns.key_name) != (dns.key_file is not None):
        missing, other = ("key_file", "key_name") if dns.key_name else ("key_name", "key_file")
        yield _at(config, f"[acme.dns] {missing}", "", f"is missing; {other} needs it")


def _tls(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    hosts: list[str] = [host for domain in config.certified for host in domain.hosts]
    if config.tls.default and config.tls.default not in hosts and "domain" not in partial:
        near = nearest(config.tls.default, hosts)
        yield _at(
            config, "[tls] default", as_toml(config.tls.default), "must be one of the hosts of a [[domain]]", near
        )


def _listeners(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    for listener in config.listeners:
        place = listener.place
        if listener.socket is not None:
            if listener.port is not None:
                yield _at(config, f"{place} port", str(listener.port), "a listener has a port or a socket, not both")
            if listener.addresses:
                yield _at(config, f"{place} addresses", "", "a Unix socket has no addresses")
            if listener.implicit_tls:
                plain = listener.protocol[:-1]
                yield _at(
                    config,
                    f"{place} protocol",
                    as_toml(listener.protocol),
                    "TLS from the first byte makes no sense on a Unix socket",
                    plain,
                )
        if len(set(listener.addresses)) < len(listener.addresses):
            yield _at(config, f"{place} addresses", "", "names an address twice")
        if listener.allow_cleartext:
            yield from _cleartext(config, listener)
        if listener.require_tls and listener.protocol != "lmtp":
            reason = "is for lmtp; everywhere else passwords need TLS anyway"
            yield _at(config, f"{place} require_tls", "true", reason)
        if listener.sniff_delay and not listener.starttls:
            reason = f"is for listeners with STARTTLS; {listener.protocol} has no greeting to hold back"
            yield _at(config, f"{place} sniff_delay", f"{listener.sniff_delay:g}", reason)
        if listener.early_tls != "serve" and not listener.sniff_delay:
            reason = "has no use without sniff_delay, such as 0.1"
            yield _at(config, f"{place} early_tls", as_toml(listener.early_tls), reason)


def _cleartext(config: Config, listener: Listener) -> Iterator[Problem]:
    place = f"{listener.place} allow_cleartext"
    if listener.implicit_tls:
        yield _at(config, place, "true", f"{listener.protocol} has TLS from the first byte")
    elif listener.protocol in ("lmtp", "http"):
        yield _at(config, place, "true", f"{listener.protocol} carries no passwords")
    elif not is_loopback(listener):
        yield _at(
            config, place, "true", 'only with addresses of loopback, such as ["127.0.0.1", "::1"], or a Unix socket'
        )


def _bound_twice(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    bound: dict[tuple[int, int], dict[str, Listener]] = {}
    sockets: dict[str, Listener] = {}
    for listener in config.listeners:
        if listener.socket is not None:
            path = os.path.normpath(listener.socket)
            if path in sockets:
                reason = f"is already the socket of {sockets[path].place}"
                yield _at(config, f"{listener.place} socket", as_toml(listener.socket), reason)
            sockets.setdefault(path, listener)
            continue
        port = listener.tcp_port
        clash: tuple[str, Listener] | None = None
        for address in dict.fromkeys(listener.bind_addresses):
            family = ipaddress.ip_address(address).version
            others = bound.setdefault((family, port), {})
            # All addresses of a family include each of them; sockets for :: take no IPv4.
            every = "0.0.0.0" if family == 4 else "::"  # noqa: S104 - compared, not bound
            same = next((other for other in others if address == other or every in (address, other)), None)
            if same is not None and clash is None:
                clash = (same, others[same])
            others.setdefault(address, listener)
        if clash is not None:
            reason = f"port {port} is already bound by {clash[1].place} on {clash[0]}"
            key, value = ("port", str(port)) if listener.port is not None else ("protocol", as_toml(listener.protocol))
            yield _at(config, f"{listener.place} {key}", value, reason)


def _mail(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    mail = config.mail
    yield from (_at(config, "[mail] location", as_toml(mail.location), *why) for why in _location(config))
    for use, folder in mail.special_use.items():
        if use not in _SPECIAL_USES:
            near = nearest(use, _SPECIAL_USES)
            yield _at(config, "[mail] special_use", as_toml(use), f"must be one of {', '.join(_SPECIAL_USES)}", near)
        parts = folder.split(mail.separator)
        if not all(parts) or folder.upper() == "INBOX" or any(part in (".", "..") for part in parts):
            yield _at(config, "[mail] special_use", as_toml(folder), "must be the name of a folder other than INBOX")
    folders = list(mail.special_use.values())
    for folder in sorted({folder for folder in folders if folders.count(folder) > 1}):
        yield _at(config, "[mail] special_use", as_toml(folder), "two special uses have the same folder")
    if any(character in mail.prefix for character in "*%"):
        yield _at(config, "[mail] prefix", as_toml(mail.prefix), "must not contain * or %")


def _location(config: Config) -> Iterator[tuple[str, str]]:
    location = config.mail.location
    try:
        parts = list(string.Formatter().parse(location))
    except ValueError:
        yield "has a brace that is not closed or not opened", ""
        return
    fields = {field for _text, field, _spec, _conversion in parts if field is not None}
    if any(spec or conversion for _text, _field, spec, conversion in parts):
        yield "must have plain fields only, such as {local}", ""
        return
    for field in sorted(fields - set(_LOCATION_FIELDS)):
        near = nearest(field, _LOCATION_FIELDS)
        listed = ", ".join(f"{{{name}}}" for name in _LOCATION_FIELDS)
        yield f"{{{field}}} is no field; there are {listed}", f"{{{near}}}" if near else ""
    if not location.startswith(("/", "{root}", "{home}")):
        yield "must begin with /, {root} or {home}", ""
    if ".." in location.split("/"):
        yield "must not contain ..", ""
    if not fields & {"user", "local", "home"}:
        yield "must contain {user}, {local} or {home}: accounts would share one Maildir", ""
    elif not fields & {"user", "domain", "home"} and len(config.domains) > 1:
        yield "must contain {user}, {domain} or {home}: users of two domains would share one Maildir", ""


def _auth(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    auth = config.auth
    if not auth.backends:
        yield _at(config, "[auth] backends", "[]", 'needs at least one, such as "file:/etc/mailserver/users"')
    for number, backend in enumerate(auth.backends, 1):
        name, _colon, _argument = backend.partition(":")
        if not _BACKEND.fullmatch(name):
            # What stands there may be a password: it is not shown.
            yield _at(config, "[auth] backends", "", f"number {number} must be NAME:ARGUMENT")
    if not auth.mechanisms:
        yield _at(config, "[auth] mechanisms", "[]", "needs at least one, such as PLAIN")
    domains: list[str] = [domain.name for domain in config.domains]
    if auth.default_domain and auth.default_domain not in domains and "domain" not in partial:
        near = nearest(auth.default_domain, domains)
        yield _at(
            config, "[auth] default_domain", as_toml(auth.default_domain), "must be the name of a [[domain]]", near
        )
    if auth.failure_delay_max < auth.failure_delay:
        yield _at(config, "[auth] failure_delay_max", f"{auth.failure_delay_max:g}", "must not be below failure_delay")


def _minima(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    for table, key, least, source in _MINIMA:
        value = getattr(getattr(config, table), key)
        if value < least:
            yield _at(config, f"[{table}] {key}", f"{value:g}", f"must be at least {least} ({source})")
    if 1800 <= config.imap.timeout <= config.imap.idle_notice:
        yield _at(config, "[imap] idle_notice", f"{config.imap.idle_notice:g}", "must be below timeout")


def _pop3(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    words = config.pop3.uidl_format
    place = "[pop3] uidl_format"
    bare = _UIDL_FIELD.sub("", words)
    if "%" in bare:
        yield _at(config, place, as_toml(words), "has a % that is neither %u, %v (with width and X) nor %%")
    elif "u" not in {field[-1] for field in _UIDL_FIELD.findall(words)}:
        yield _at(config, place, as_toml(words), "must contain %u: messages would share one UIDL")
    # RFC 1939 7: 1 to 70 characters from 0x21 to 0x7E; each field gives at most 10 digits.
    if not all("!" <= character <= "~" for character in bare) or len(bare) > 40:
        yield _at(config, place, as_toml(words), "must give at most 70 visible ASCII characters (RFC 1939 7)")


def _relay(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    relay = config.submission.relay
    if relay is None:
        return
    loopback = relay.host == "localhost"
    # A name that is no address: only localhost is known to be here.
    with contextlib.suppress(ValueError):
        loopback = loopback or ipaddress.ip_address(relay.host).is_loopback
    if relay.tls == "none" and not loopback:
        yield _at(config, "[submission.relay] tls", '"none"', "only to localhost or an address of loopback")
    if relay.tls == "none" and relay.ca_file is not None:
        yield _at(config, "[submission.relay] ca_file", "", 'has no use with tls = "none"')
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if getattr(relay, name) is not None and getattr(relay, other) is None:
            yield _at(config, f"[submission.relay] {other}", "", f"is missing; {name} needs it")
    if relay.key_password_file is not None and relay.key is None:
        yield _at(config, "[submission.relay] key_password_file", "", "has no use without certificate and key")
    if relay.verification == "none" and relay.ca_file is not None:
        reason = 'has no use with verification = "none"'
        yield _at(config, "[submission.relay] ca_file", as_toml(relay.ca_file), reason)
    if relay.user and relay.password_file is None:
        yield _at(config, "[submission.relay] password_file", "", "is missing; user needs it")
    if relay.password_file is not None and not relay.user:
        yield _at(config, "[submission.relay] user", "", "is missing; password_file needs it")


def _lmtp(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    separator = config.lmtp.detail_separator
    if separator and (len(separator) > 1 or not separator.isascii() or separator.isalnum() or separator in ' "@\\'):
        reason = "must be one character that is no letter, digit, space, quote or @, or empty"
        yield _at(config, "[lmtp] detail_separator", as_toml(separator), reason)


def _system_user(config: Config, _partial: frozenset[str]) -> Iterator[Problem]:
    server = config.server
    if not server.user and os.geteuid() == 0:
        yield _at(config, "[server] user", "", 'is missing; started as root it is needed, if need be "root" in words')
    if server.user:
        try:
            pwd.getpwnam(server.user)
        except KeyError:
            yield _at(config, "[server] user", as_toml(server.user), "no such user on this machine")
    if server.group:
        try:
            grp.getgrnam(server.group)
        except KeyError:
            yield _at(config, "[server] group", as_toml(server.group), "no such group on this machine")


CHECKS: Final[tuple[Callable[[Config, frozenset[str]], Iterator[Problem]], ...]] = (
    _system_user,
    _something_served,
    _domains,
    _tls,
    _listeners,
    _bound_twice,
    _mail,
    _auth,
    _minima,
    _pop3,
    _relay,
    _lmtp,
    _acme,
)
