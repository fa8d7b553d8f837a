"""Validation of a configuration's certificates, keys and TLS settings.

`pair` validates pairs and `authority` makes certificates; both are exported here too.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import attrs
from attrs import frozen

from mailserver.config.directories import Identity, reader_trust, service_identity
from mailserver.config.model import Config, Domain, Problem, Relay, Tls
from mailserver.config.strict_modes import Trust, trust, unsafe
from mailserver.config.trusted_files import UNSAFE, command_fault
from mailserver.config.values import as_toml
from mailserver.tls.acme.files import acme_problems
from mailserver.tls.ca.authority import issue, make_ca, make_self_signed
from mailserver.tls.ca.private_ca import KEY
from mailserver.tls.ca.renewal import authority_of, warnings
from mailserver.tls.client import client_faults
from mailserver.tls.context.client_certificates import Demand, read_demand
from mailserver.tls.context.context_map import Terms
from mailserver.tls.context.contexts import make_context
from mailserver.tls.context.settings import PRESETS, cipher_faults, key_types_of, setting_faults, settings_of
from mailserver.tls.keypair.key_password import read_password
from mailserver.tls.keypair.pair import BadPair, Pair, load_pair, pair_faults
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.keypair.published_ca import read_published_ca
from mailserver.types import Secret

__all__ = ["BadPair", "Fault", "Pair", "check", "issue", "load_pair", "make_ca", "make_self_signed"]

_HAVE_FALLBACK: Final = ("certificate", "key", "hosts")
"""Keys whose faults do not prevent the start: a fallback is served."""

_OF_FIRST: Final = ("certificate", "key", "key_password_file", "key_password_command")


def check(config: Config, *, now: dt.datetime | None = None, starting: bool = False) -> list[Problem]:
    """Return every problem of certificates, keys and TLS settings. Raises nothing.

    With `starting`, problems of a domain's pair are warnings, as a fallback is served.
    """
    now = now or dt.datetime.now(dt.UTC)
    identity = service_identity(config)
    problems = [
        config.problem(f"{place} {key}", as_toml(value), reason) for place, key, value, reason in setting_faults(config)
    ]
    ca_faults: list[Fault] = []
    authority = read_published_ca(config.tls, ca_faults)
    if authority is not None:
        ca_faults += [Fault("private_ca", words, warning=True) for words in warnings(config, authority, now)]
        ca_faults += _authority_rights(config, identity)
    problems += [
        # The authority is published for people; mail is served without it.
        config.problem(
            "[tls] private_ca", as_toml(config.tls.private_ca), fault.reason, warning=starting or fault.warning
        )
        for fault in ca_faults
    ]
    trusted = reader_trust(config)
    for domain in config.domains_and_sites:
        faults = [
            *domain_faults(domain, now, config.tls, trusted),
            *_rights(domain, identity, has_master=config.server.workers != 0),
        ]
        if starting:
            faults = [attrs.evolve(fault, warning=fault.warning or _has_fallback(fault, domain)) for fault in faults]
        problems += [as_problem(config, domain, fault) for fault in faults]
    problems += acme_problems(config, identity)
    relay = config.submission.relay
    if relay is not None:
        for fault in (*client_faults(relay), *_relay_rights(relay, identity)):
            value = as_toml(getattr(relay, fault.key))
            place = f"[submission.relay] {fault.key}"
            problems.append(config.problem(place, value, fault.reason, warning=fault.warning))
    return problems


def _has_fallback(fault: Fault, domain: Domain) -> bool:
    """Is something else served in place of a pair with this fault? An unsafe file of any pair counts."""
    of_pairs = [key for key, _path in _of_pairs(domain)]
    return fault.key in _HAVE_FALLBACK or (fault.key in of_pairs and fault.reason.startswith(UNSAFE))


def domain_faults(domain: Domain, now: dt.datetime, tls: Tls, trusted: Trust | None = None) -> list[Fault]:
    """Return all faults of a domain's files and settings; `trusted`: see `read_domain`."""
    reading = read_domain(domain, now, tls, trusted)
    if reading.pair is not None and all(fault.warning for fault in reading.faults):
        try:
            # `check` reports the settings separately: here only OpenSSL's verdict on the pairs counts.
            make_context(reading.pair, PRESETS["modern"], attrs.evolve(reading.terms, ciphers=None))
        except BadPair as bad:
            return [*reading.faults, *bad.faults]
    return reading.faults


@frozen
class Reading:
    """The validated content of a domain's files."""

    pair: Pair | None
    """None if it cannot be served."""
    terms: Terms
    faults: list[Fault]
    """Faults of both pairs and of the terms."""


def read_domain(domain: Domain, now: dt.datetime, tls: Tls, trusted: Trust | None = None) -> Reading:
    """Read and validate all files that a domain names, if any, and run its password command.

    No file is read, and no command run, that others than `trusted` could change; the default is root, this process's user
    and the program's owner.
    """
    faults = list(_unsafe_files(domain, trusted or trust()))
    unsafe_keys = {fault.key for fault in faults}
    first_is_unsafe = not unsafe_keys.isdisjoint(_OF_FIRST)
    found = len(faults)
    password = None if first_is_unsafe else read_password(domain, faults)
    if not first_is_unsafe and len(faults) == found and domain.certificate is not None and domain.key is not None:
        pair = _read_pair(domain, now, (domain.certificate, domain.key), password, faults)
        second = None
        second_is_unsafe = not unsafe_keys.isdisjoint(("second_certificate", "second_key"))
        if domain.second_certificate is not None and domain.second_key is not None and not second_is_unsafe:
            of_second: list[Fault] = []
            second = _read_pair(domain, now, (domain.second_certificate, domain.second_key), password, of_second)
            if pair is not None and second is not None and pair.key_type == second.key_type:
                other = "RSA" if pair.key_type == "ECDSA" else "ECDSA"
                reason = f"has a key of the first one's type; a second one is for {other}"
                of_second.append(Fault("certificate", reason))
            faults += [_of_second(fault) for fault in of_second]
    else:
        pair = second = None
    if domain.ciphers is not None:
        faults += [Fault("ciphers", reason) for reason in cipher_faults(domain.ciphers, tls.preset)]
    # An unsafe demand is a fault: the host is not served on these terms.
    demand_is_unsafe = not unsafe_keys.isdisjoint(("client_ca", "client_crl"))
    demand = Demand() if demand_is_unsafe else read_demand(domain, now, faults)
    settings = settings_of(tls)
    least = domain.minimum_version or settings.minimum_version
    if least == "1.2" and pair is not None:
        faults += _suite_faults(pair, second, key_types_of(domain.ciphers or settings.ciphers, tls.preset))
    return Reading(pair, Terms(demand, domain.ciphers, least, second), faults)


def _of_pairs(domain: Domain) -> list[tuple[str, Path]]:
    names = ("certificate", "key", "second_certificate", "second_key", "key_password_file")
    return [(name, path) for name in names if (path := getattr(domain, name)) is not None]


def _unsafe_files(domain: Domain, trusted: Trust) -> Iterator[Fault]:
    terms = ((name, getattr(domain, name)) for name in ("client_ca", "client_crl"))
    for name, path in (*_of_pairs(domain), *terms):
        if path is not None and (fault := unsafe(path, trusted)):
            yield Fault(name, f"{UNSAFE}: {fault}")
    if domain.key_password_command and (fault := command_fault(domain.key_password_command, trusted)):
        yield Fault("key_password_command", fault)


def _read_pair(
    domain: Domain, now: dt.datetime, files: tuple[Path, Path], password: Secret | None, faults: list[Fault]
) -> Pair | None:
    try:
        pair = load_pair(*files, password)
    except BadPair as bad:
        faults += [*bad.faults, *(pair_faults(bad.pair, domain.hosts, now) if bad.pair is not None else ())]
        return None
    faults += pair_faults(pair, domain.hosts, now)
    return pair


def _suite_faults(pair: Pair, second: Pair | None, key_types: Collection[str]) -> Iterator[Fault]:
    """Warn of keys without a cipher suite of TLS 1.2; `key_types` is empty if the suites themselves are refused."""
    own = {each.key_type for each in (pair, second) if each is not None}
    if key_types and own.isdisjoint(key_types):
        other = "ECDSA" if pair.key_type == "RSA" else "RSA"
        way = f"add those of ECDHE-{pair.key_type}, or a second_certificate with a key of {other}"
        reason = f"has a key of {pair.key_type}, and ciphers names no suite for one: TLS 1.2 finds none; {way}"
        yield Fault("certificate", reason, warning=True)


def _of_second(fault: Fault) -> Fault:
    if fault.key == "hosts":
        return attrs.evolve(fault, reason=fault.reason.replace("the certificate", "second_certificate"))
    return attrs.evolve(fault, key=f"second_{fault.key}")


def as_problem(config: Config, domain: Domain, fault: Fault) -> Problem:
    """Convert a fault to a problem of the configuration."""
    value = fault.value or (None if fault.key in ("hosts", "key_password_command") else getattr(domain, fault.key))
    place = f"{domain.place} {fault.key}"
    return config.problem(place, as_toml(value), fault.reason, warning=fault.warning)


def _rights(domain: Domain, identity: Identity, *, has_master: bool = False) -> Iterator[Fault]:
    """Check that the service can read the files at a reload, and that others cannot read the keys.

    With workers the master reads them, and keeps its user.
    """
    if domain.certificate is None or domain.key is None:
        return
    why = (
        "which reads it at the start and at each reload"
        if has_master
        else "which reads it: workers = 0 has one process with that user; with workers a master started as root reads it"
    )
    files = _of_pairs(domain)
    for name, path in files:
        if has_master and os.geteuid() == 0:
            break
        # `load_pair` has reported what this process cannot read.
        if os.access(path, os.R_OK, effective_ids=True) and not identity.may_open(path):
            yield Fault(name, f"cannot be read by user {identity.name!r}, {why}")
    for name, path in files:
        if not name.endswith("certificate"):
            yield from _others_rights(name, path, identity)


def _authority_rights(config: Config, identity: Identity) -> Iterator[Fault]:
    """Warn if the service's user, which renews where there is no master, cannot read the authority's key."""
    directory = authority_of(config)
    if directory is None or config.server.workers != 0:
        return
    path = directory / KEY
    if os.access(path, os.R_OK, effective_ids=True) and not identity.may_open(path):
        reason = (
            f"has its key in {path}, which user {identity.name!r} cannot read: the server renews nothing that it signed"
        )
        yield Fault("private_ca", reason, warning=True)


def _relay_rights(relay: Relay, identity: Identity) -> Iterator[Fault]:
    """Check that the service's user, which connects to the next hop, can read the certificate's key."""
    for name in ("key", "key_password_file"):
        path = getattr(relay, name)
        if path is None:
            continue
        if os.access(path, os.R_OK, effective_ids=True) and not identity.may_open(path):
            yield Fault(name, f"cannot be read by user {identity.name!r}, which shows the certificate to the next hop")
        yield from _others_rights(name, path, identity)


def _others_rights(name: str, path: Path, identity: Identity) -> Iterator[Fault]:
    try:
        status = os.stat(path)
    except OSError:
        return
    if status.st_mode & stat.S_IRWXO:
        reason = "can be read or changed by every user of this machine: chmod 600, and renew what was in it"
        yield Fault(name, reason, warning=True)
    elif status.st_mode & stat.S_IRWXG and status.st_gid not in identity.gids | {0}:
        reason = "can be read or changed by a group that is not the service's: chgrp or chmod 600"
        yield Fault(name, reason, warning=True)
