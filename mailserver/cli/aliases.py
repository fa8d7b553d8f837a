"""`mailserver alias` and `mailserver group`: addresses of a directory that lead to several users, or to one of another name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from mailserver.cli.account_stores import author
from mailserver.cli.accounts import Accounts, on_accounts
from mailserver.cli.address_names import address_name, opened, targets_of
from mailserver.cli.columns import plain, print_table
from mailserver.cli.options import FullHelpGroup
from mailserver.directory import address_changes, addresses, field_rules
from mailserver.directory.model import AddressKind, StoredAddress, Target

_SHOWN = 5
"""Targets in a row of a table."""


@click.group("alias", cls=FullHelpGroup)
def alias() -> None:
    """Add, list, show, disable and remove aliases: further addresses of users, who may also send as them."""


@click.group("group", cls=FullHelpGroup)
def group() -> None:
    """Add, list, show, disable and remove groups: addresses whose members get the mail, and may not send as them."""


def _command(name: str, words: Mapping[AddressKind, str], *parameters: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the work of a command of both groups: `words` are its help texts."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for kind, into in ((AddressKind.ALIAS, alias), (AddressKind.GROUP, group)):

            def work(accounts: Accounts, *, kind: AddressKind = kind, **arguments: Any) -> None:
                function(accounts, kind, **arguments)

            command = on_accounts(work)
            for parameter in reversed(parameters):
                # Nobody may send as a group.
                if kind is AddressKind.ALIAS or parameter is not _NO_SEND:
                    command = parameter(command)
            into.add_command(click.command(name, help=words[kind])(command))
        return function

    return decorate


def _checked_note(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        return field_rules.note(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_ADDRESS = click.argument("address")
_TARGETS = click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
_SOME_TARGETS = click.argument("targets", nargs=-1, metavar="[TARGET]...")
_FORCE = click.option("--force", is_flag=True, help="Add targets in domains of this server that do not exist, too.")
_NOTE = click.option("--note", default="", callback=_checked_note, help="Words for the administrator.")
_NO_SEND = click.option("--no-send", is_flag=True, help="These targets may not send as the address.")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
_USER = click.option("--user", "of_user", metavar="NAME", help="Only those that lead to this user directly.")


@_command(
    "add",
    {
        AddressKind.ALIAS: """Have mail to ADDRESS go to each TARGET: users, other addresses here, or addresses elsewhere.

    The users among them may send as ADDRESS. An alias that exists gets these targets in addition.
    """,
        AddressKind.GROUP: """Have mail to ADDRESS go to each TARGET: users, other addresses here, or addresses elsewhere.

    A group that exists gets these members in addition.
    """,
    },
    _ADDRESS,
    _TARGETS,
    _NO_SEND,
    _NOTE,
    _FORCE,
)
def _add(
    accounts: Accounts,
    kind: AddressKind,
    address: str,
    targets: Sequence[str],
    *,
    no_send: bool = False,
    note: str,
    force: bool,
) -> None:
    may_send = kind is AddressKind.ALIAS and not no_send
    with opened(accounts) as database:
        name = address_name(accounts, database, address)
        found = targets_of(accounts, database, name, targets, may_send=may_send, force=force)
        stored = addresses.find_stored(database, name)
        if stored is not None and stored.kind is kind:
            new = address_changes.add_targets(database, author(), name, found)
            click.echo(f"{name}: added {_words(new)}" if new else f"{name} has these targets already")
            return
        address_changes.add_address(database, author(), StoredAddress(name, kind, tuple(found), note=note))
    click.echo(f"added the {kind.value} {name}: {_words(found)}")


@_command(
    "remove",
    {
        AddressKind.ALIAS: "Remove the alias ADDRESS, or only these targets of it. Mail to a removed alias is refused.",
        AddressKind.GROUP: "Remove the group ADDRESS, or only these members of it. Mail to a removed group is refused.",
    },
    _ADDRESS,
    _SOME_TARGETS,
)
def _remove(accounts: Accounts, kind: AddressKind, address: str, targets: Sequence[str]) -> None:
    with opened(accounts) as database:
        stored = _existing(accounts, database, kind, address)
        present = {target.name for target in stored.targets}
        names = [address_name(accounts, database, each, local=False) for each in targets]
        if not names:
            address_changes.remove_address(database, author(), stored.name)
            click.echo(f"removed the {kind.value} {stored.name}, which led to {_words(stored.targets)}")
            return
        if present <= set(names):
            raise click.ClickException(
                f"{stored.name} would have no target left: `mailserver {kind.value} remove {stored.name}` removes it,"
                f" `mailserver {kind.value} disable {stored.name}` keeps it and refuses its mail"
            )
        address_changes.remove_targets(database, author(), stored.name, names)
    click.echo(f"{stored.name}: removed {', '.join(names)}")


@_command(
    "disable",
    {
        AddressKind.ALIAS: "Refuse mail to the alias ADDRESS, and mail from it, until it is enabled.",
        AddressKind.GROUP: "Refuse mail to the group ADDRESS until it is enabled.",
    },
    _ADDRESS,
)
def _disable(accounts: Accounts, kind: AddressKind, address: str) -> None:
    _set_enabled(accounts, kind, address, enabled=False)


@_command(
    "enable",
    {
        AddressKind.ALIAS: "Accept mail to the alias ADDRESS again.",
        AddressKind.GROUP: "Accept mail to the group ADDRESS again.",
    },
    _ADDRESS,
)
def _enable(accounts: Accounts, kind: AddressKind, address: str) -> None:
    _set_enabled(accounts, kind, address, enabled=True)


def _set_enabled(accounts: Accounts, kind: AddressKind, address: str, *, enabled: bool) -> None:
    with opened(accounts) as database:
        stored = _existing(accounts, database, kind, address)
        if stored.enabled is not enabled:
            address_changes.set_address_enabled(database, author(), stored.name, enabled=enabled)
    click.echo(f"{'enabled' if enabled else 'disabled'} {stored.name}")


@_command(
    "list",
    {
        AddressKind.ALIAS: "List the aliases and where they lead.",
        AddressKind.GROUP: "List the groups and their members.",
    },
    _USER,
    _JSON,
)
def _list(accounts: Accounts, kind: AddressKind, *, of_user: str | None, as_json: bool) -> None:
    user = None if of_user is None else accounts.existing(of_user).name
    with opened(accounts) as database:
        found = [
            stored
            for stored in addresses.addresses(database, kind)
            if user is None or any(target.is_account and target.name == user for target in stored.targets)
        ]
    if as_json:
        click.echo(json.dumps([_data(stored) for stored in found], indent=2))
        return
    print_table(
        (kind.value.upper(), "STATE", "LEADS TO"),
        [(stored.name, "enabled" if stored.enabled else "disabled", _words(stored.targets)) for stored in found],
    )


@_command(
    "show",
    {
        AddressKind.ALIAS: "Show the alias ADDRESS: its targets, one on each line, and which of them may send as it.",
        AddressKind.GROUP: "Show the group ADDRESS: its members, one on each line.",
    },
    _ADDRESS,
    _JSON,
)
def _show(accounts: Accounts, kind: AddressKind, address: str, *, as_json: bool) -> None:
    with opened(accounts) as database:
        stored = _existing(accounts, database, kind, address)
    if as_json:
        click.echo(json.dumps(_data(stored), indent=2))
        return
    click.echo(f"{stored.name}: {kind.value}, {'enabled' if stored.enabled else 'disabled'}")
    if stored.note:
        click.echo(f"note: {plain(stored.note)}")
    for target in stored.targets:
        place = "user" if target.is_account else "address"
        click.echo(
            f"{place}: {plain(target.name)}{', may send as it' if target.may_send and target.is_account else ''}"
        )
    if not stored.targets:
        click.echo("no target is left: mail to it is refused")


def _existing(accounts: Accounts, database: Any, kind: AddressKind, address: str) -> StoredAddress:
    """The alias or group of that name. Raises: click.ClickException."""
    name = address_name(accounts, database, address, local=False)
    stored = addresses.find_stored(database, name)
    if stored is not None and stored.kind is kind:
        return stored
    other = addresses.kind_of(database, name)
    if other is None:
        raise click.ClickException(
            f"there is no {kind.value} {name}; `mailserver {kind.value} list` lists those that exist"
        )
    raise click.ClickException(
        f"{name} is {'an' if other is AddressKind.ALIAS else 'a'} {other.value}: use `mailserver {other.value}`"
    )


def _data(stored: StoredAddress) -> dict[str, object]:
    return {
        "address": stored.name,
        "kind": stored.kind.value,
        "enabled": stored.enabled,
        "note": stored.note or None,
        "targets": [
            {"name": target.name, "user": target.is_account, "may_send": target.may_send and target.is_account}
            for target in stored.targets
        ],
    }


def _words(targets: Iterable[Target]) -> str:
    names = [target.name for target in targets]
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "") if names else "nobody"
