"""`mailserver directory export|plan|apply`: a directory as one TOML document, which can be edited and made true."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import click

from mailserver.auth.backends.directory_lines import line_of
from mailserver.auth.limits import LOCAL_NETWORK
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.mail_address import normalise_address
from mailserver.auth.schemes.passwd import normalise
from mailserver.cli.account_stores import DirectoryStore, author, stores_of
from mailserver.cli.app_passwords import PROTOCOLS
from mailserver.cli.columns import plain, print_table
from mailserver.cli.directory import on_directory
from mailserver.cli.user_mail import reload_users
from mailserver.config import values
from mailserver.config.model import Config
from mailserver.directory import applying, document, document_parse, plan, reading
from mailserver.directory.document_tables import Checks
from mailserver.directory.plan import Plan, Surroundings
from mailserver.idn import ascii_name
from mailserver.sasl.scram_keys import ScramKeys

_MOST_FAULTS: Final = 50
"""Faults that are printed."""
_LARGEST: Final = 256 * 1024 * 1024
"""Octets of a file."""
_MOST_STEPS: Final = 200
"""Steps that `apply` prints before it asks."""


def _file_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options that `plan` and `apply` share."""
    file = click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
    delete = click.option("--delete", is_flag=True, help="Remove what the file does not have, users included.")
    force = click.option("--force", is_flag=True, help="Take targets that do not exist, or that mail cannot reach.")
    return file(delete(force(function)))


@click.command("export")
@click.option("--passwd", is_flag=True, help="Users alone, in Dovecot's passwd-file format.")
@click.option("--no-secrets", is_flag=True, help="Without passwords' hashes and digests, and SCRAM keys.")
@on_directory
def export(store: DirectoryStore, _config: Config | None, *, passwd: bool, no_secrets: bool) -> None:
    """Print all of the directory as a TOML document: domains, users, app passwords, aliases, groups, delegates.

    It has hashes, digests and keys, by which phones go on after `apply` on another machine, and no password in clear text.
    The record of changes is not in it; `mailserver directory backup` copies everything.
    """
    if passwd and no_secrets:
        raise click.UsageError("--passwd and --no-secrets exclude each other")
    with store.opened() as database:
        if passwd:
            for account in reading.accounts(database):
                click.echo(line_of(account))
            return
        found = applying.load(database)
    click.echo("\n".join(document.write(found, secrets=not no_secrets)))


@click.command("plan")
@_file_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@on_directory
def plan_file(
    store: DirectoryStore, config: Config | None, *, file: Path, delete: bool, force: bool, as_json: bool
) -> None:
    """Print what `apply` with the same options would change, row by row. Nothing is changed.

    What FILE does not have stays, unless --delete is given. Users without a password in FILE keep the one that they have.
    """
    before, made = _plan(store, config, file, delete=delete, force=force)
    if as_json:
        steps = [
            {"action": step.action.value, "kind": step.kind, "name": step.name, "change": step.words() or None}
            for step in made.steps
        ]
        click.echo(json.dumps({"at": before.serial, "changes": steps, "notes": list(made.notes)}, indent=2))
        return
    _print(made, len(made.steps))
    if made.steps:
        options = "".join(f" --{name}" for name, given in (("delete", delete), ("force", force)) if given)
        click.echo(f"\n`mailserver directory apply {file}{options} --at {before.serial}` makes exactly these changes")


@click.command("apply")
@_file_options
@click.option("--at", type=int, help="Refuse if the directory had other changes after this one, which `plan` prints.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_directory
def apply_file(
    store: DirectoryStore, config: Config | None, *, file: Path, delete: bool, force: bool, at: int | None, yes: bool
) -> None:
    """Make the directory as FILE says, in one transaction, after printing the changes and asking.

    What FILE does not have stays, unless --delete is given. Users without a password in FILE keep the one that they have;
    new ones get none. A file with a fault changes nothing.
    """
    before, made = _plan(store, config, file, delete=delete, force=force)
    if at is not None and before.serial != at:
        raise click.ClickException(
            f"nothing was applied: the directory's last change is {before.serial}, and the plan was made at {at};"
            f" `mailserver directory changes --since {at}` lists the others, `mailserver directory plan {file}` plans anew"
        )
    if not made.steps:
        click.echo("nothing to change")
        return
    _print(made, _MOST_STEPS)
    if not yes:
        click.confirm(f"Make these {len(made.steps)} changes?", abort=True)
    with store.opened() as database:
        assert before.serial is not None
        applying.apply(database, author(), made.steps, (before.id, before.serial))
    click.echo(f"applied {_count(made)}")
    reload_users(config)


def _plan(
    store: DirectoryStore, config: Config | None, file: Path, *, delete: bool, force: bool
) -> tuple[document.Document, Plan]:
    """The directory now, and the way from it to the file. Raises: click.ClickException for any fault."""
    text = _text(file)
    with store.opened() as database:
        before = applying.load(database)
    parsed = document_parse.parse(text, _checks_beside(before))
    made = plan.make(before, parsed, surroundings(store, config), delete=delete, force=force)
    if made.faults:
        lines = [plain(f"{file} {fault}" if fault.line else f"{file}: {fault}") for fault in made.faults[:_MOST_FAULTS]]
        if len(made.faults) > _MOST_FAULTS:
            lines.append(f"and {len(made.faults) - _MOST_FAULTS} more")
        raise click.ClickException("\n".join(["nothing was changed, as the file has faults:", *lines]))
    given = parsed.document
    if made.steps and given.serial is not None and given.id == before.id and given.serial != before.serial:
        raise click.ClickException(
            f"{file} was exported at change {given.serial}, and the directory's last change is {before.serial}:"
            f" `mailserver directory changes --since {given.serial}` lists those that it does not know;"
            " without its lines `id` and `serial` it is applied all the same"
        )
    if made.steps and given.id and given.id != before.id:
        note = (
            f"{file} was exported from another directory, or from this one before `directory restore`: nothing says whether it"
            " undoes later changes"
        )
        return before, attrs.evolve(made, notes=(note, *made.notes))
    return before, made


def _checks_beside(before: document.Document) -> Checks:
    """The checks of a document. A stored password that cannot be used, and stands in the directory already, is no fault."""
    present = {user.password.secret for user in before.users.values() if user.password is not None}
    return attrs.evolve(CHECKS, secret=lambda secret: secret in present or schemes.parse(secret))


def surroundings(store: DirectoryStore, config: Config | None) -> Surroundings:
    """The domains of the configuration, and the users of its other back ends. Raises: click.ClickException."""
    if config is None:
        return Surroundings(any_domain=True)
    others: set[str] = set()
    for each in stores_of(config):
        if each.path != store.path:
            try:
                others.update(entry.name for entry in each.entries())
            except OSError as error:
                raise click.ClickException(f"{each.path}: {error.strerror}") from error
    return Surroundings(
        others,
        [domain.name.lower() for domain in config.domains],
        separator=config.lmtp.detail_separator,
        has_other_users=len(config.auth.backends) > 1,
        mail_leaves=config.submission.relay is not None,
    )


def _text(file: Path) -> str:
    """The file's text, or that of standard input. Raises: click.ClickException."""
    try:
        with click.open_file(str(file), "rb") as opened:
            data = bytes(opened.read(_LARGEST + 1))
        if len(data) > _LARGEST:
            raise click.ClickException(f"{file} is larger than {_LARGEST} octets")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file} is no UTF-8: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _print(made: Plan, most: int) -> None:
    if not made.steps:
        click.echo("nothing to change")
    else:
        print_table(
            ("DO", "KIND", "NAME", "CHANGE"),
            [(step.action.value, step.kind, step.name, step.words()) for step in made.steps[:most]],
        )
    if len(made.steps) > most:
        click.echo(f"and {len(made.steps) - most} more, {_count(made)} in all; `mailserver directory plan` prints all")
    for note in made.notes[:_MOST_FAULTS]:
        click.echo(f"note: {plain(note)}", err=True)


def _count(made: Plan) -> str:
    """For example "2 changes (add 1 user, change 1 alias)"."""
    numbers = Counter((step.action.value, step.kind) for step in made.steps)
    parts = ", ".join(f"{action} {number} {kind}" for (action, kind), number in sorted(numbers.items()))
    return f"{len(made.steps)} change{'' if len(made.steps) == 1 else 's'} ({parts})"


def _domain(written: str) -> str:
    bare = written.rstrip(".")
    return values.host_name(ascii_name(bare) or bare)


def _network(written: str) -> Any:
    return written if written == LOCAL_NETWORK else ipaddress.ip_network(written, strict=False)


def _protocol(written: str) -> None:
    if written not in PROTOCOLS:
        raise ValueError(f"{written!r} is not one of {', '.join(PROTOCOLS)}")


CHECKS: Final = Checks(normalise, normalise_address, _domain, schemes.parse, ScramKeys.parse, _network, _protocol)
