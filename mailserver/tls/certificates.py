"""What is wrong with the certificates of a configuration; and the way to certificates for others.

The judging is `pair`'s, the making is `authority`'s; what other parts need of both has its name here too.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Iterator

from mailserver.config.directories import Identity, service_identity
from mailserver.config.model import Config, Domain, Problem, Tls
from mailserver.config.values import as_toml
from mailserver.tls.authority import issue, make_ca, make_self_signed
from mailserver.tls.client_certificates import read_demand
from mailserver.tls.contexts import Terms, make_context, setting_faults
from mailserver.tls.pair import BadPair, Fault, Pair, load_pair, pair_faults, read_authorities

__all__ = ["BadPair", "Fault", "Pair", "check", "issue", "load_pair", "make_ca", "make_self_signed"]


def check(config: Config, *, now: dt.datetime | None = None) -> list[Problem]:
    """Every problem of all files with certificates and keys, and of the TLS settings. Raises nothing."""
    now = now or dt.datetime.now(dt.UTC)
    identity = service_identity(config)
    problems = [
        Problem(str(config.source), f"[tls] {key}", as_toml(value), reason)
        for key, value, reason in setting_faults(config.tls)
    ]
    for domain in config.certified:
        problems += [as_problem(config, domain, fault) for fault in domain_faults(domain, now)]
        problems += [
            as_problem(config, domain, fault)
            for fault in _rights(domain, identity, has_master=config.server.workers != 0)
        ]
    relay = config.submission.relay
    if relay is not None and relay.ca_file is not None:
        try:
            read_authorities(relay.ca_file)
        except BadPair as bad:
            place = "[submission.relay] ca_file"
            problems += [
                Problem(str(config.source), place, as_toml(relay.ca_file), fault.reason) for fault in bad.faults
            ]
    return problems


def domain_faults(domain: Domain, now: dt.datetime) -> list[Fault]:
    """Everything wrong with a domain's pair."""
    faults: list[Fault] = []
    terms = read_terms(domain, now, faults)
    try:
        pair = load_pair(domain.certificate, domain.key)
        faults += pair_faults(pair, domain.hosts, now)
        # Settings are told apart; here only what OpenSSL says of the pair counts.
        make_context(pair, Tls(), terms)
    except BadPair as bad:
        faults += bad.faults
    return faults


def read_terms(domain: Domain, now: dt.datetime, faults: list[Fault]) -> Terms:
    """On what terms a domain's hosts are served, with what is wrong of that added to `faults`."""
    return Terms(read_demand(domain, now, faults))


def as_problem(config: Config, domain: Domain, fault: Fault) -> Problem:
    """A fault in the administrator's words."""
    value = fault.value or (None if fault.key == "hosts" else getattr(domain, fault.key))
    place = f"{domain.place} {fault.key}"
    return Problem(str(config.source), place, as_toml(value), fault.reason, warning=fault.warning)


def _rights(domain: Domain, identity: Identity, *, has_master: bool = False) -> Iterator[Fault]:
    """Whether the service can read the files at a reload, and who else can read the key.

    With workers it is the master who reads them, and stays who it is.
    """
    why = (
        "who reads it at the start and at each reload"
        if has_master
        else "who reads it: with workers = 0 the one process is that user; with workers a master started as root reads it"
    )
    for name, path in (("certificate", domain.certificate), ("key", domain.key)):
        if has_master and os.geteuid() == 0:
            break
        # What cannot be read here and now `load_pair` has told.
        if os.access(path, os.R_OK, effective_ids=True) and not identity.may_open(path):
            yield Fault(name, f"cannot be read by user {identity.name!r}, {why}")
    try:
        status = os.stat(domain.key)
    except OSError:
        return
    if status.st_mode & stat.S_IRWXO:
        yield Fault("key", "can be read or changed by every user of this machine", warning=True)
    elif status.st_mode & stat.S_IRWXG and status.st_gid not in identity.gids | {0}:
        yield Fault("key", "can be read or changed by a group that is not the service's", warning=True)
