"""`mailserver quota`: the usage and limits of accounts, beside a running or a stopped server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from mailserver.auth.interfaces import User
from mailserver.auth.limits import Limits
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.auth.schemes.quota_fields import quota_of
from mailserver.cli.account_stores import stores_of
from mailserver.cli.columns import octets, print_table
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.config.model import Config
from mailserver.errors import MailError, NoSuchUser
from mailserver.session.quotas import UserQuotas
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.quota import percent_used
from mailserver.system.as_user import become
from mailserver.types import UNLIMITED, Quota, Usage
from mailserver.wiring.mail_store import make_store


@click.group("quota", cls=FullHelpGroup)
def quota() -> None:
    """Look at what accounts keep and may keep, and count it anew."""


@quota.command("list")
@click.argument("names", metavar="[USER]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def list_usage(configuration: Path, names: Sequence[str], *, as_json: bool) -> None:
    """Print usage and limits of each USER, or of all users of the users file."""
    config = load_or_fail(configuration)
    rows = [(user.name, usage, limits) for user, usage, limits in _usages(config, names)]
    if as_json:
        click.echo(json.dumps([_row(*row) for row in rows], indent=2, ensure_ascii=False))
        return
    print_table(
        ("USER", "FULL", "STORAGE", "LIMIT", "MESSAGES", "LIMIT", "FOLDERS", "LIMIT"),
        [
            (
                name,
                f"{percent_used(limits, usage)}%" if limits.limits_messages else "",
                octets(usage.storage),
                "" if _bound(limits.storage) is None else octets(limits.storage or 0),
                str(usage.messages),
                _words(limits.messages),
                str(usage.mailboxes),
                _words(limits.mailboxes),
            )
            for name, usage, limits in rows
        ],
    )


@quota.command("recalculate")
@click.argument("names", metavar="[USER]...", nargs=-1)
@config_option
def recalculate(configuration: Path, names: Sequence[str]) -> None:
    """Read all folders of each USER, or of all users of the users file, and count their mail anew.

    The server keeps these numbers itself; this is for a doubt, or after files were changed by hand.
    """
    config = load_or_fail(configuration)
    wrong = 0
    for user, account in _accounts(config, names):
        if account is None:
            continue
        try:
            before, after = account.recount()
        except MailError as error:
            raise click.ClickException(f"{user.name}: {error.sentence}") from error
        finally:
            account.close()
        if before != after:
            wrong += 1
            click.echo(
                f"{user.name}: {before.messages} messages and {before.storage} octets were {after.messages} and {after.storage}"
            )
    click.echo("all numbers were right" if not wrong else f"{wrong} accounts had other numbers")


def _usages(config: Config, names: Sequence[str]) -> Iterator[tuple[User, Usage, Quota]]:
    quotas = UserQuotas.of_config(config)
    for user, account in _accounts(config, names):
        usage = Usage(0, 0, 0)
        if account is not None:
            try:
                usage = account.usage()
            except MailError as error:
                raise click.ClickException(f"{user.name}: {error.sentence}") from error
            finally:
                account.close()
        yield user, usage, quotas.of_user(user)


def _accounts(config: Config, names: Sequence[str]) -> Iterator[tuple[User, Any]]:
    """Yield users with their accounts, None without mail, as the service's user, who must own the files made there."""
    users = list(_users(config, names))
    become(config.server)
    store: MaildirStore | None = None
    for user in users:
        try:
            store = store or make_store(config)
            yield user, store.existing(user.name, user.home)
        except NoSuchUser as error:
            if names:
                raise click.ClickException(f"[mail] location says no place for {user.name!r}") from error
        except MailError as error:
            raise click.ClickException(f"{config.mail.root}: {error.sentence}") from error


def _users(config: Config, names: Sequence[str]) -> Iterable[User]:
    """Return these users, or all; those that no users file has are without limits of their own."""
    known: dict[str, User] = {}
    for accounts in stores_of(config):
        try:
            for entry in accounts.entries():
                known.setdefault(entry.name, User(entry.name, entry.home or None, limits=Limits(quota=quota_of(entry))))
        except OSError as error:
            raise click.ClickException(f"{accounts.path}: {error.strerror}") from error
    if not names:
        return known.values()
    try:
        return [known.get(normalise(name)) or User(normalise(name)) for name in names]
    except BadName as error:
        raise click.ClickException(str(error)) from error


def _bound(limit: int | None) -> int | None:
    return None if limit == UNLIMITED else limit


def _words(limit: int | None) -> str:
    return "" if _bound(limit) is None else str(limit)


def _row(name: str, usage: Usage, limits: Quota) -> dict[str, object]:
    return {
        "user": name,
        "percent": percent_used(limits, usage) if limits.limits_messages else None,
        "storage": usage.storage,
        "storage_limit": _bound(limits.storage),
        "messages": usage.messages,
        "messages_limit": _bound(limits.messages),
        "mailboxes": usage.mailboxes,
        "mailboxes_limit": _bound(limits.mailboxes),
    }
