"""`mailserver index`: the indexes that the server keeps beside an account's mail."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import click

from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.cli.account_stores import home_of
from mailserver.cli.columns import print_table
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.errors import NoSuchUser
from mailserver.message.render import summarise
from mailserver.store.maildir.account.account import is_account
from mailserver.store.maildir.account.index_report import Report, report
from mailserver.store.maildir.account.store import MaildirStore


@click.group("index", cls=FullHelpGroup)
def index() -> None:
    """Look at the indexes of an account. They are made, kept up and mended by the server."""


@index.command("show")
@click.argument("name", metavar="USER")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@config_option
def show(configuration: Path, name: str, *, as_json: bool) -> None:
    """Print the size of USER's indexes, and how much of each mailbox's text is indexed."""
    config = load_or_fail(configuration)
    try:
        user = normalise(name)
        store = MaildirStore(config.mail.root, summarise, location=config.mail.location)
        root = store.path(user, home_of(config, user))
    except BadName as error:
        raise click.ClickException(f"{name!r}: {error}") from error
    except NoSuchUser as error:
        raise click.ClickException(f"[mail] location says no place for {name!r}") from error
    if not is_account(root):
        raise click.ClickException(f"{user} has no mail in {root}")
    found = report(root)
    if as_json:
        click.echo(json.dumps({**attrs.asdict(found), "search_index": config.mail.search_index}, indent=2))
    else:
        _print(found, switched_off=not config.mail.search_index)


def _print(found: Report, *, switched_off: bool) -> None:
    click.echo(f"index       {_mebibytes(found.index)}")
    off = "  ([mail] search_index = false)" if switched_off else ""
    click.echo(f"text index  {_mebibytes(found.text_index)}{off}")
    click.echo()
    print_table(
        ("MAILBOX", "MESSAGES", "TEXT INDEXED"),
        [
            (mailbox.name, str(mailbox.messages), "" if mailbox.indexed is None else str(mailbox.indexed))
            for mailbox in found.mailboxes
        ],
    )


def _mebibytes(octets: int) -> str:
    return f"{octets / 2**20:.1f} MiB"
