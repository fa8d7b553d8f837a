"""`mailserver tls`: TLS as clients see it at this server's listeners."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import click
import dns.exception

from mailserver.cli.cert import listed
from mailserver.cli.clients import impact
from mailserver.cli.columns import plain, print_table
from mailserver.cli.dns_answers import BadResolver, Resolver, unanswered
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail, suggestion
from mailserver.config.model import Config
from mailserver.idn import ascii_name
from mailserver.probe.chain import BadAuthorities, Trust
from mailserver.probe.elsewhere import domains_with, in_autoconfig, in_dns
from mailserver.probe.examine import FULLY, Examination, Report, Row
from mailserver.probe.expectation import Certificates, key_files
from mailserver.probe.finding import Finding, gathered


@click.group("tls", cls=FullHelpGroup)
def tls() -> None:
    """TLS as clients see it, and the clients that a change would shut out."""


tls.add_command(impact)


@tls.command("probe")
@click.option("--ca", multiple=True, type=click.Path(dir_okay=False, path_type=Path), help="PEM: trust these, too.")
@click.option("--name", "hosts", multiple=True, metavar="HOST", help="Test this configured host alone.")
@click.option("--dns/--no-dns", "with_dns", default=True, show_default=True, help="Compare with DNS.")
@click.option("--resolver", metavar="HOST:PORT", help="Ask this server, by its address, instead of the system's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--fully", is_flag=True, help=f"Test every version with every name, even with more than {FULLY} names.")
@config_option
def probe(
    configuration: Path,
    ca: tuple[Path, ...],
    hosts: tuple[str, ...],
    resolver: str | None,
    *,
    with_dns: bool,
    as_json: bool,
    fully: bool,
) -> None:
    """Connect to every listener of this server as clients do, and check what it shows.

    Each listener is tested with every configured name, with an unknown name and without one, by implicit TLS or STARTTLS,
    with TLS 1.0 to 1.3. With more than 100 names, names with the same configuration are tested with the newest version
    alone, except one of them. The exit status is 1 if something is wrong; warnings do not count. Trusted are the system's
    authorities, that of `[tls] private_ca`, and those of --ca.
    """
    config = load_or_fail(configuration)
    hosts = tuple(ascii_name(host) or host for host in hosts)
    _check_hosts(config, hosts)
    try:
        trust = Trust.load([*ca, *([config.tls.private_ca] if config.tls.private_ca else [])])
        dns_server = Resolver(resolver) if with_dns else None
    except (BadAuthorities, BadResolver) as error:
        raise click.ClickException(str(error)) from error
    certificates = Certificates(_managed(config))
    examination = Examination(config, trust, certificates, dt.datetime.now(dt.UTC))
    with click.progressbar(length=1, label="testing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        report = examination.run(hosts, fully=fully, progress=progress)
    findings = gathered(
        [*report.findings, *key_files(config), *in_autoconfig(config, hosts), *_dns(config, dns_server, hosts)]
    )
    if as_json:
        click.echo(json.dumps(_as_json(report, findings), indent=2))
    else:
        _show(report.rows, findings)
    if not all(finding.warning for finding in findings):
        raise SystemExit(1)


def _check_hosts(config: Config, hosts: tuple[str, ...]) -> None:
    known = [host for domain in config.domains_and_sites for host in domain.hosts]
    for host in hosts:
        if host not in known:
            raise click.BadParameter(f"no domain has the host {host}{suggestion(host, known)}", param_hint="--name")


def _managed(config: Config) -> Callable[[str], str | None]:
    """Return a function from host to certificate, for hosts without files; it asks once, on the first call."""
    known: dict[str, str] | None = None

    def certificate(host: str) -> str | None:
        nonlocal known
        if known is None:
            known = {row["host"]: row["certificate"] for row in listed(config).data}
        return known.get(host)

    return certificate


def _dns(config: Config, resolver: Resolver | None, hosts: tuple[str, ...]) -> Iterator[Finding]:
    if resolver is None:
        return
    for domain in domains_with(config, hosts):
        try:
            yield from in_dns(config, resolver, domain)
        except dns.exception.DNSException as error:
            yield Finding("dns-unanswered", domain.name, f"{unanswered(error)}; --no-dns skips it")
            if isinstance(error, dns.exception.Timeout):
                return  # do not wait as long for each of the others


def _as_json(report: Report, findings: dict[Finding, list[str]]) -> dict[str, object]:
    return {
        "rows": [attrs.asdict(row) for row in report.rows],
        "findings": [
            {
                "code": finding.code,
                "subject": finding.subject,
                "words": finding.words,
                "warning": finding.warning,
                "places": seen,
            }
            for finding, seen in findings.items()
        ],
    }


def _show(rows: list[Row], findings: dict[Finding, list[str]]) -> None:
    """Print a table in which equal results of several listeners share a line."""
    alike: dict[Row, list[Row]] = {}
    for row in rows:
        alike.setdefault(attrs.evolve(row, place="", tls="", alpn=""), []).append(row)
    every = len({row.place for row in rows})
    print_table(
        ("NAME", "", "VERSIONS", "CERTIFICATE", "ISSUER", "KEY", "DAYS", "CHAIN", "ALPN", "LISTENERS"),
        [
            (
                row.name,
                row.kind,
                " ".join(row.versions),
                row.subject,
                row.issuer,
                row.key,
                "" if row.days is None else str(row.days),
                str(row.chain),
                " ".join(dict.fromkeys(each.alpn for each in same)),
                f"all {every}" if len(same) == every else ", ".join(each.place for each in same),
            )
            for row, same in alike.items()
        ],
    )
    click.echo()
    if not findings:
        click.echo("nothing is wrong")
    for finding, seen in findings.items():
        where = f" ({_some(seen)})" if seen and seen != [finding.subject] else ""
        warning = "warning: " if finding.warning else ""
        click.echo(plain(f"{finding.code}: {finding.subject}: {warning}{finding.words}{where}"))


def _some(places: list[str]) -> str:
    shown = ", ".join(places[:2])
    return f"{shown} and {len(places) - 2} more" if len(places) > 2 else shown
