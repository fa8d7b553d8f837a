"""`mailserver auth test`: tries a login as the server would, and shows each restriction that applies."""

from __future__ import annotations

import json
import os
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import click
from attrs import frozen
from twisted.internet import defer, task

from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import IReadsAhead, IReloadable, LoginContext
from mailserver.auth.plugins import BrokenBackend, UnknownBackend, find_backend, is_source_of_addresses
from mailserver.auth.restrictions import Names
from mailserver.auth.sources import Source
from mailserver.auth.trial import Trial, try_login
from mailserver.cli.columns import plain
from mailserver.cli.options import config_option, load_or_fail
from mailserver.cli.user import ask_password
from mailserver.config.model import Config
from mailserver.explain.record import Record
from mailserver.explain.story import advice, trial_story
from mailserver.system.as_user import become
from mailserver.types import Secret

_TIME: Final = 60.0
"""Seconds for the whole trial."""


@click.command("test")
@click.argument("name", metavar="USER")
@click.option(
    "--protocol",
    type=click.Choice(["imap", "pop3", "submission"]),
    default="imap",
    show_default=True,
    help="The protocol of the login.",
)
@click.option("--from", "peer", metavar="ADDRESS", help="The client's address; a Unix socket without it.")
@click.option("--name", "host", metavar="HOST", help="The host that the client asks for by SNI.")
@click.option("--no-password", is_flag=True, help="Try everything but the password.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def trial_command(
    configuration: Path,
    name: str,
    protocol: str,
    peer: str | None,
    host: str | None,
    *,
    no_password: bool,
    as_json: bool,
) -> None:
    """Try a login of USER with the configured back ends, as the server would, and show what would refuse it.

    The password is asked for, or read from standard input. Nothing waits, counts as a guess or is recorded, and the server need
    not run. A client certificate is not presented. The status is 1 if the login would be refused.
    """
    config = load_or_fail(configuration)
    address = _address(peer)
    password = None if no_password else Secret(ask_password(generate=False, confirm=False).encode("utf-8"))
    # Code of back ends runs as in the server, and files that it makes are the server's.
    become(config.server)
    try:
        sources = [Source(find_backend(entry.use, DirectHasher()), entry) for entry in config.auth.backends]
    except (UnknownBackend, BrokenBackend) as error:
        raise click.ClickException(str(error)) from error
    served = _Hosts(config).served(host)
    context = LoginContext(protocol, address, served, "trial", server_name=host)
    trial = _run(
        config, [each for each in sources if not is_source_of_addresses(each.backend)], name, password, context
    )
    _show(_record(name, trial, context), trial, password is not None, as_json=as_json)
    sys.stdout.flush()
    # A back end may have left a thread that would delay the exit.
    os._exit(1 if trial.reason else 0)


@frozen
class _Hosts:
    """What the server's certificates decide, by the configuration alone: a trial has no client certificate."""

    config: Config

    def names(self) -> Names:
        """For the login service."""
        return Names(
            frozenset(domain.name.lower() for domain in self.config.domains),
            self.config.auth.default_domain,
            self.domain_of,
            demands=self.demands,
        )

    def served(self, name: str | None) -> str | None:
        """The host of the configuration for a name asked for; None: the default, as for a client that names no host."""
        if name is None:
            return None
        wanted = name.lower().rstrip(".")
        wildcard = f"*.{wanted.partition('.')[2]}"
        known = {host.lower() for each in self.config.domains_and_sites for host in each.hosts}
        return next((each for each in (wanted, wildcard) if each in known), None)

    def domain_of(self, host: str | None) -> str | None:
        """The mail domain of a host."""
        for each in self.config.domains_and_sites:
            if host is not None and host in {name.lower() for name in each.hosts}:
                return each.name.lower()
        return None

    def demands(self, domain: str) -> bool:
        """Does the domain require client certificates? With an empty domain: does every domain?"""
        of_domain = [each for each in self.config.domains if not domain or each.name.lower() == domain]
        return bool(of_domain) and all(each.client_certificates == "required" for each in of_domain)


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return None if text is None else ip_address(text)
    except ValueError as error:
        raise click.BadParameter("an IPv4 or IPv6 address is expected", param_hint="--from") from error


def _run(config: Config, sources: list[Source], name: str, password: Secret | None, context: LoginContext) -> Trial:
    """Raises: click.ClickException if a back end does not answer."""
    found: list[Trial] = []

    async def work() -> None:
        for each in sources:
            if IReadsAhead.providedBy(each.backend):
                each.backend.read_ahead()
            if IReloadable.providedBy(each.backend):
                each.backend.reload()
        weak = config.auth.weak_schemes
        names = _Hosts(config).names()
        found.append(
            await try_login(sources, DirectHasher(), names, name, context, password=password, weak_schemes=weak)
        )

    try:
        task.react(lambda reactor: defer.ensureDeferred(work()).addTimeout(_TIME, reactor))
    except SystemExit as ended:
        if ended.code:
            raise click.ClickException("a back end does not answer, or has failed") from ended
    return found[0]


def _record(name: str, trial: Trial, context: LoginContext) -> Record:
    trace = context.trace
    return Record(
        time.time(),
        # The administrator knows it.
        typed=name,
        user=trace.user,
        names=trace.names,
        protocol=context.protocol,
        peer="" if context.peer is None else str(context.peer),
        server_name=context.server_name or "",
        host=context.host or "",
        rule="" if trial.rule is None else trial.rule.value,
        reason=trial.reason,
        calls=tuple(trace.calls),
    )


def _show(record: Record, trial: Trial, with_password: bool, *, as_json: bool) -> None:
    lines = trial_story(record)
    if record.server_name and not record.host:
        lines.append(
            f"The host {record.server_name} is none of the configuration: such clients get the default certificate."
        )
    if trial.reason:
        lines.append(f"The login would be refused: {trial.reason}.")
        lines += [f"Restriction: {each}." for each in trial.restrictions if each != trial.reason]
        lines.append(advice(record))
    elif with_password:
        lines.append("The login would succeed.")
    else:
        lines.append("Nothing but a wrong password would refuse the login.")
    if as_json:
        data = {
            "user": record.user or None,
            "names": list(record.names),
            "protocol": record.protocol,
            "peer": record.peer or None,
            "host": record.host or None,
            "refused": bool(trial.reason),
            "rule": record.rule or None,
            "reason": trial.reason or None,
            "restrictions": list(trial.restrictions),
            "calls": [[each.backend, each.question, each.seconds, each.answer] for each in record.calls],
            "story": lines,
        }
        click.echo(json.dumps(data, indent=2))
        return
    for line in lines:
        click.echo(plain(line))
