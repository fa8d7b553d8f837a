"""`mailserver mailbox`: the folders of an account."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.cli.account_stores import home_of
from mailserver.cli.columns import print_table
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail, suggestion
from mailserver.config.model import Config
from mailserver.errors import MailError, NoSuchUser
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.system.as_user import become
from mailserver.wiring.mail_store import make_store

USES = ("Archive", "Drafts", "Junk", "Sent", "Trash")


@click.group("mailbox", cls=FullHelpGroup)
def mailbox() -> None:
    """Look at the folders of an account, and set their special uses."""


@mailbox.command("special-use")
@click.argument("name", metavar="USER")
@click.argument("changes", metavar="[USE=FOLDER]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def special_use(configuration: Path, name: str, changes: Sequence[str], *, as_json: bool) -> None:
    """Print which folder of USER is Sent, Trash and so on, after giving those uses to those folders.

    FOLDER is a name as mail programs have it. USE= without a folder takes back what was set, by this command, by a mail
    program or when the account was made: then a name that [mail] special_use lists, or a usual one, decides.
    """
    config = load_or_fail(configuration)
    namespace = Namespace.make(config.mail.separator, config.mail.prefix, slashes=bool(config.mail.escape))
    wanted = [_change(each) for each in changes]
    account = _open(config, name)
    try:
        for use, folder in wanted:
            try:
                account.give_special_use(f"\\{use}", namespace.to_store(folder) if folder else None)
            except MailError as error:
                raise click.ClickException(f"{use}={folder}: {error.sentence}") from error
        holders = account.special_uses()
    except MailError as error:
        raise click.ClickException(f"{name}: {error.sentence}") from error
    finally:
        account.close()
    rows = [(use, holders.get(f"\\{use}")) for use in sorted({*USES, *(each.removeprefix("\\") for each in holders)})]
    if as_json:
        found = [
            {
                "use": use,
                "folder": None if holder is None else namespace.to_client(holder.name),
                "source": None if holder is None else holder.source,
            }
            for use, holder in rows
        ]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    print_table(
        ("USE", "FOLDER", "BECAUSE"),
        [
            (use, "", "no folder has a name for it")
            if holder is None
            else (use, namespace.to_client(holder.name), _WHY[holder.source])
            for use, holder in rows
        ],
    )


_WHY = {
    "given": "it was set",
    "configured": "[mail] special_use names it",
    "usual name": "its name is a usual one",
}


def _change(words: str) -> tuple[str, str]:
    use, equals, folder = words.partition("=")
    if not equals:
        raise click.UsageError(f"{words!r} must be USE=FOLDER, or USE= to take back what was set")
    known = {each.lower(): each for each in USES}
    if use.lower() not in known:
        raise click.UsageError(f"{use!r} is no special use{suggestion(use, USES)}")
    return known[use.lower()], folder


def _open(config: Config, name: str) -> MaildirAccount:
    """Open the account as the service's user, who must own the files made there."""
    try:
        user = normalise(name)
        home = home_of(config, user)
        become(config.server)
        account = make_store(config).existing(user, home)
    except BadName as error:
        raise click.ClickException(f"{name!r}: {error}") from error
    except NoSuchUser as error:
        raise click.ClickException(f"[mail] location says no place for {name!r}") from error
    except MailError as error:
        raise click.ClickException(f"{config.mail.root}: {error.sentence}") from error
    if account is None:
        raise click.ClickException(f"{name} has no mail yet")
    return account
