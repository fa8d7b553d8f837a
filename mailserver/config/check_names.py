"""Checks of domains, their sites and their certificates together."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Final

from mailserver.config.model import AcmeDns, Config, Domain, Problem
from mailserver.config.values import as_toml, nearest

_CONTACT: Final = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]+")

MAX_POLICY_AGE: Final = 31_557_600
"""Seconds of a year (RFC 8461 3.2)."""


def domains(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    """Check the domains, their sites, and their certificate keys."""
    names: dict[str, str] = {}
    hosts: dict[str, str] = {}
    for domain in config.domains:
        if domain.name in names:
            yield config.problem(
                f"{domain.place} name", as_toml(domain.name), f"is already the name of {names[domain.name]}"
            )
        names.setdefault(domain.name, domain.place)
        yield from _mta_sts(config, domain, partial)
        yield from _clients(config, domain)
    for table in config.domains_and_sites:
        if not table.hosts:
            yield config.problem(f"{table.place} hosts", "[]", "needs at least one host name")
        for host in table.hosts:
            if host in hosts:
                yield config.problem(f"{table.place} hosts", as_toml(host), f"is already a host of {hosts[host]}")
            hosts.setdefault(host, table.place)
        yield from _acme_domain(config, table)
        if table.certificate is None and table.key is not None:
            yield config.problem(f"{table.place} certificate", "", "is missing; key needs it")
        if table.key is None and table.certificate is not None:
            yield config.problem(f"{table.place} key", "", "is missing; certificate needs it")
        yield from _keys(config, table)


def _mta_sts(config: Config, domain: Domain, partial: frozenset[str]) -> Iterator[Problem]:
    if len(set(domain.mx)) < len(domain.mx):
        yield config.problem(f"{domain.place} mx", as_toml(domain.mx), "lists a host twice")
    policy, place = domain.mta_sts, f"{domain.place[:-1]}.mta_sts]"
    if policy is None:
        return
    if policy.mode != "none" and not domain.mx:
        yield config.problem(f"{place} mode", as_toml(policy.mode), "needs mx in the [[domain]]")
    if policy.max_age > MAX_POLICY_AGE:
        reason = f"must be at most {MAX_POLICY_AGE} (RFC 8461 3.2)"
        yield config.problem(f"{place} max_age", str(policy.max_age), reason)
    if policy.mode != "none":
        yield from _policy_host(config, domain, place, partial)


def _policy_host(config: Config, domain: Domain, place: str, partial: frozenset[str]) -> Iterator[Problem]:
    """RFC 8461 3.3: senders fetch the policy over HTTPS only, under a certificate of its host."""
    host = f"mta-sts.{domain.name}"
    if "listener" not in partial and not any(listener.protocol == "https" for listener in config.listeners):
        yield config.problem(place, "", "no [[listener]] of protocol https serves it", warning=True)
    if "domain" not in partial and not any(
        each in (host, f"*.{domain.name}") for table in config.domains_and_sites for each in table.hosts
    ):
        reason = f"{host} is not a host of the [[domain]] or a [[domain.site]]: senders that fetch it find no valid certificate"
        yield config.problem(place, "", reason, warning=True)


def _keys(config: Config, domain: Domain) -> Iterator[Problem]:
    for name, other in (("second_certificate", "second_key"), ("second_key", "second_certificate")):
        if getattr(domain, name) is not None and getattr(domain, other) is None:
            yield config.problem(f"{domain.place} {other}", "", f"is missing; {name} needs it")
    if domain.certificate is None and domain.key is None:
        for name in ("second_certificate", "key_password_file", "key_password_command"):
            if getattr(domain, name):
                yield config.problem(f"{domain.place} {name}", "", "has no effect without certificate and key")
    if domain.key_password_file is not None and domain.key_password_command:
        yield config.problem(
            f"{domain.place} key_password_command", "", "set key_password_file or key_password_command, not both"
        )


def _clients(config: Config, domain: Domain) -> Iterator[Problem]:
    asked = domain.client_certificates
    if asked != "none" and domain.client_ca is None:
        yield config.problem(f"{domain.place} client_ca", "", f'is missing; client_certificates = "{asked}" needs it')
    for name in ("client_ca", "client_crl"):
        if asked == "none" and getattr(domain, name) is not None:
            reason = 'has no effect unless client_certificates is "asked" or "required"'
            yield config.problem(f"{domain.place} {name}", as_toml(getattr(domain, name)), reason)


def _acme_domain(config: Config, domain: Domain) -> Iterator[Problem]:
    place = f"{domain.place} acme"
    if not domain.acme:
        return
    if domain.certificate is not None or domain.key is not None:
        yield config.problem(place, "true", "has no effect with certificate and key: remove them")
    if config.acme is None:
        yield config.problem(place, "true", 'needs a table [acme], with at least terms_of_service = "agreed"')
    elif config.acme.dns is None:
        for host in domain.hosts:
            if host.startswith("*."):
                reason = f"{host} can be validated only by DNS: add a table [acme.dns], or remove the wildcard"
                yield config.problem(place, "true", reason)


def acme(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    """Check the authority and its challenges."""
    acme = config.acme
    if acme is None:
        return
    if importlib.util.find_spec("acme") is None:
        yield config.problem(
            "[acme]",
            "",
            "needs the packages of the extra acme: pip install -c constraints.txt '.[acme]' in the source",
        )
    if not acme.directory.startswith("https://"):
        yield config.problem("[acme] directory", as_toml(acme.directory), "must begin with https:// (RFC 8555 6.1)")
    for contact in acme.contact:
        if not _CONTACT.fullmatch(contact):
            reason = "must be a URL, such as mailto:postmaster@example.org"
            yield config.problem(
                "[acme] contact", as_toml(contact), reason, f"mailto:{contact}" if "@" in contact else ""
            )
    plain = any(listener.protocol == "http" for listener in config.listeners) or "listener" in partial
    if (
        acme.challenge == "http-01"
        and acme.webroot is None
        and not plain
        and any(each.acme for each in config.domains_and_sites)
    ):
        reason = "needs a [[listener]] of protocol http, or a webroot"
        yield config.problem("[acme] challenge", as_toml(acme.challenge), reason)
    if acme.challenge == "dns-01" and acme.dns is None:
        yield config.problem("[acme] challenge", as_toml(acme.challenge), "needs a table [acme.dns]")
    if acme.challenge == "dns-01" and acme.webroot is not None:
        yield config.problem("[acme] webroot", as_toml(acme.webroot), 'has no effect with challenge = "dns-01"')
    if bool(acme.eab_key_id) != (acme.eab_key_file is not None):
        missing, other = ("eab_key_file", "eab_key_id") if acme.eab_key_id else ("eab_key_id", "eab_key_file")
        yield config.problem(f"[acme] {missing}", "", f"is missing; {other} needs it")
    if acme.dns is not None:
        yield from _acme_dns(config, acme.dns)


def _acme_dns(config: Config, dns: AcmeDns) -> Iterator[Problem]:
    # It may contain a secret: it is not shown.
    if bool(dns.hook) == (dns.server is not None):
        yield config.problem("[acme.dns] hook", "", "either a hook or a server is needed")
    if dns.hook and not dns.hook[0].startswith("/"):
        yield config.problem("[acme.dns] hook", "", "must begin with the absolute path of the program")
    if bool(dns.key_name) != (dns.key_file is not None):
        missing, other = ("key_file", "key_name") if dns.key_name else ("key_name", "key_file")
        yield config.problem(f"[acme.dns] {missing}", "", f"is missing; {other} needs it")


def tls(config: Config, partial: frozenset[str]) -> Iterator[Problem]:
    """Check the hosts for clients without SNI, and the private authority."""
    if config.tls.private_ca_crl_url and config.tls.private_ca is None:
        yield config.problem("[tls] private_ca", "", "is missing; private_ca_crl_url needs it")
    if "domain" in partial:
        return
    hosts: list[str] = [host for domain in config.domains_and_sites for host in domain.hosts]
    for place, default in [("[tls]", config.tls.default), *((each.place, each.default) for each in config.listeners)]:
        if default and default not in hosts:
            near = nearest(default, hosts)
            yield config.problem(f"{place} default", as_toml(default), "must be one of the hosts of a [[domain]]", near)
