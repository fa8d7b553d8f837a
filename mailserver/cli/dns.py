"""`mailserver dns`: the DNS records of a domain, printed or compared with DNS."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import click

from mailserver.cli.cert import listed
from mailserver.cli.columns import print_table
from mailserver.cli.dkim import published_keys
from mailserver.cli.dns_answers import BadResolver, Finding, Resolver, compare
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail, suggestion
from mailserver.config.model import Config, Domain
from mailserver.discovery.dns_records import TTL, Note, Record, records
from mailserver.discovery.services import find_domain, mail_host, public_addresses
from mailserver.dkim.key_file import BadKeyFile
from mailserver.tls.keypair.dns_values import issuer_name, key_digest

_MAX_CERTIFICATE = 1 << 20


@click.group("dns", cls=FullHelpGroup)
def dns() -> None:
    """DNS records by which clients and mail servers find a domain."""


@dns.command("records")
@click.argument("name", metavar="DOMAIN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines of a zone file.")
@config_option
def print_records(configuration: Path, name: str, *, as_json: bool) -> None:
    """Print the records that DOMAIN needs, in a zone file's form."""
    config = load_or_fail(configuration)
    found = _records(config, _domain(config, name))
    if as_json:
        rows = {
            "records": [{**attrs.asdict(each), "ttl": TTL} for each in found if isinstance(each, Record)],
            "notes": [each.words for each in found if isinstance(each, Note)],
        }
        click.echo(json.dumps(rows, indent=2))
        return
    for each in found:
        click.echo(str(each))


@dns.command("check")
@click.argument("name", metavar="DOMAIN")
@click.option("--resolver", metavar="HOST:PORT", help="Ask this server, by its address, instead of the system's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def check(configuration: Path, name: str, resolver: str | None, *, as_json: bool) -> None:
    """Compare the records of DOMAIN with DNS.

    The exit status is 0 if all records are as expected, otherwise 1. For SPF, DMARC and TLSRPT one record of any content
    is enough.
    """
    config = load_or_fail(configuration)
    domain = _domain(config, name)
    host = mail_host(config, domain)
    if host is None:
        raise click.ClickException(f"{domain.name} has only wildcard hosts")
    expected = [each for each in _records(config, domain) if isinstance(each, Record)]
    try:
        findings = list(compare(Resolver(resolver), host, public_addresses(config), expected))
    except BadResolver as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([attrs.asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.state != "ok" for finding in findings):
        raise SystemExit(1)


def _show(findings: list[Finding]) -> None:
    print_table(
        ("STATE", "NAME", "TYPE", "EXPECTED", "FOUND"),
        [
            (finding.state, finding.name, finding.kind, ", ".join(finding.expected), ", ".join(finding.found))
            for finding in findings
        ],
    )


def _domain(config: Config, name: str) -> Domain:
    domain = find_domain(config, name.rstrip("."))
    if domain is None:
        known = [each.name for each in config.domains]
        raise click.ClickException(f"no [[domain]] is called {name}{suggestion(name, known)}")
    return domain


def _records(config: Config, domain: Domain) -> list[Record | Note]:
    """Collect the records. Without a readable certificate its TLSA and CAA records are omitted."""
    host = mail_host(config, domain)
    keys: dict[str, list[str]] = {}
    issuers: dict[str, None] = {}
    for table in config.domains_and_sites:
        serves = host is not None and _covers(table, host)
        if table.name != domain.name and not serves:
            continue
        for path in (table.certificate, *filter(None, (table.second_certificate,))):
            try:
                pem = _certificate(config, table, path)
                digest, issuer = key_digest(pem), issuer_name(pem)
            except (OSError, ValueError) as error:
                click.echo(f"{path or table.place}: {error}; its TLSA and CAA records are omitted", err=True)
                continue
            if host is not None and serves:
                keys.setdefault(host, []).append(digest)
            if issuer is not None and table.name == domain.name:
                issuers[issuer] = None
    try:
        dkim = published_keys(config, domain)
    except BadKeyFile as error:
        click.echo(f"{error}; its DKIM records are omitted", err=True)
        dkim = []
    return records(config, domain, keys, list(issuers), dkim)


def _certificate(config: Config, table: Domain, path: Path | None) -> bytes:
    """Read a file, or return what the domain's first host is served with. Raises: OSError, ValueError, ClickException."""
    if path is None:
        rows = listed(config).data
        return "".join(row["certificate"] for row in rows if row["host"] == table.hosts[0]).encode()
    with path.open("rb") as file:
        return file.read(_MAX_CERTIFICATE)


def _covers(table: Domain, host: str) -> bool:
    return host in table.hosts or f"*.{host.partition('.')[2]}" in table.hosts
