"""`mailserver address`: what an address leads to, and how, asked of the back ends directly, with the server up or down."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import click
from twisted.internet import defer, task

from mailserver.auth.addresses import Addresses
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.conformance_trial import CALL_TIME
from mailserver.auth.interfaces import IPasswordsOnly, Resolution, User
from mailserver.auth.plugins import BrokenBackend, UnknownBackend, find_backend, is_source_of_addresses
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.auth.sources import Source
from mailserver.cli.columns import plain
from mailserver.cli.options import config_option, load_or_fail
from mailserver.config.model import Config
from mailserver.errors import MailError
from mailserver.smtp.address import Address, parse_address
from mailserver.smtp.postmaster import NAME, Postmaster
from mailserver.smtp.transaction import find_recipients
from mailserver.system.as_user import become

T = TypeVar("T")


class _Directory:
    """Answers like the login service of a server, over back ends of its own (see Authenticator)."""

    def __init__(self, config: Config) -> None:
        """Raises: UnknownBackend, BrokenBackend."""
        sources = [Source(find_backend(entry.use, DirectHasher()), entry) for entry in config.auth.backends]
        self._listing = [
            each
            for each in sources
            if not IPasswordsOnly.providedBy(each.backend) and not is_source_of_addresses(each.backend)
        ]
        self._domains = frozenset(domain.name.lower() for domain in config.domains)
        self._default_domain = config.auth.default_domain
        self._addresses = Addresses(
            sources,
            self.find,
            self.is_local_domain,
            _no_pause,
            self._default_domain,
            detail_separator=config.lmtp.detail_separator,
        )
        self.resolve = self._addresses.resolve
        self.serves_domain = self._addresses.serves_domain

    def is_local_domain(self, domain: str) -> bool:
        """See Authenticator."""
        return domain.lower() in self._domains

    async def find(self, address: str) -> User | None:
        """See Authenticator."""
        try:
            name = normalise(address)
        except BadName:
            return None
        local, _, domain = name.partition("@")
        names = [name]
        if not domain and self._default_domain:
            names.append(f"{name}@{self._default_domain}")
        elif domain and domain == self._default_domain:
            names.append(local)
        for each in names:
            for source in self._listing:
                user: User | None = await _answer(source.backend.find_user(each)) if source.serves(names) else None
                if user is not None:
                    return user
        return None


@click.command("address")
@click.argument("address", metavar="ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def address(configuration: Path, address: str, *, as_json: bool) -> None:
    """Show which users get mail to ADDRESS, and by which aliases, groups, domains and details. Nothing is sent."""
    config = load_or_fail(configuration)
    parsed = Address(NAME, "") if address.lower() == NAME else parse_address(address)
    if parsed is None:
        raise click.ClickException(f"{plain(address)} is no address")
    # Code of back ends runs as in the server, and files that it makes are the server's.
    become(config.server)
    try:
        directory = _Directory(config)
    except (UnknownBackend, BrokenBackend) as error:
        raise click.ClickException(str(error)) from error
    outcome = _run(config, directory, parsed)
    if as_json:
        click.echo(json.dumps(_data(address, outcome), indent=2))
    elif isinstance(outcome, Resolution):
        for step in outcome.path:
            click.echo(plain(step))
        for user, detail in outcome.local:
            click.echo(f"user: {plain(user.name)}" + (f", folder {plain(detail)} if it exists" if detail else ""))
        for target in outcome.elsewhere:
            click.echo(f"elsewhere: {plain(target)}")
    else:
        click.echo(f"refused: {' '.join(map(str, outcome.smtp_reply))} {outcome.sentence}")
    sys.stdout.flush()
    # A back end may have left a thread that would delay the exit.
    os._exit(0 if isinstance(outcome, Resolution) else 1)


def _run(config: Config, directory: _Directory, address: Address) -> Resolution | MailError:
    """What a server answers to RCPT. Raises: click.ClickException if a back end does not answer."""
    postmaster = Postmaster(
        config.mail.postmaster,
        config.auth.default_domain or next((each.name for each in config.domains), ""),
        "{home}" not in config.mail.location,
    )
    found: list[Resolution | MailError] = []

    async def work() -> None:
        try:
            separator = config.lmtp.detail_separator
            found.append(await find_recipients(directory, address, separator, postmaster))  # type: ignore[arg-type]
        except MailError as error:
            found.append(error)

    try:
        task.react(lambda reactor: defer.ensureDeferred(work()).addTimeout(CALL_TIME, reactor))
    except SystemExit as ended:
        if ended.code:
            raise click.ClickException("the back ends do not answer") from ended
    return found[0]


def _data(address: str, outcome: Resolution | MailError) -> dict[str, Any]:
    if isinstance(outcome, MailError):
        code, status = outcome.smtp_reply
        return {
            "address": address,
            "users": [],
            "elsewhere": [],
            "path": [],
            "refusal": f"{code} {status} {outcome.sentence}",
        }
    return {
        "address": address,
        "users": [{"user": user.name, "detail": detail or None} for user, detail in outcome.local],
        "elsewhere": list(outcome.elsewhere),
        "path": list(outcome.path),
        "refusal": None,
    }


async def _no_pause() -> None:
    """Nobody waits for this process."""


async def _answer(given: T | Awaitable[T]) -> T:
    return await given if inspect.isawaitable(given) else given
