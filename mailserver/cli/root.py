"""The `mailserver` command and its table of subcommands. A subcommand's module is imported where it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Final

import click

from mailserver.cli.options import FullHelpGroup

if TYPE_CHECKING:
    # For tools that follow imports.
    from mailserver.cli import (  # noqa: F401
        acme,
        address,
        aliases,
        app_passwords,
        auth,
        auth_trial,
        bans,
        ca,
        ca_export,
        ca_renew,
        cert,
        cert_create,
        cert_show,
        client_settings,
        clients,
        control,
        delegates,
        demo,
        directory,
        directory_check,
        directory_document,
        dkim,
        dns,
        domain,
        domain_addresses,
        explain,
        exposures,
        imap,
        index,
        inspect,
        mailbox,
        quota,
        selftest,
        sessions,
        status,
        tls,
        user,
        user_limits,
    )

_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "acme": ("acme:acme",),
    "address": ("address:address",),
    "alias": ("aliases:alias",),
    "auth": ("auth:auth", "auth_trial:trial_command"),
    "bans": ("bans:bans",),
    "ca": ("ca:ca", "ca_export:export", "ca_export:guide", "ca_renew:renew"),
    "cert": ("cert:cert", "cert_show:show_certificate", "cert_create:create", "cert_create:request"),
    "check": ("inspect:check",),
    "client-settings": ("client_settings:client_settings",),
    "clients": ("clients:clients",),
    "delegate": ("delegates:delegate",),
    "demo": ("demo:demo",),
    "directory": (
        "directory:directory",
        "directory_check:check",
        "directory_document:export",
        "directory_document:plan_file",
        "directory_document:apply_file",
    ),
    "dkim": ("dkim:dkim",),
    "dns": ("dns:dns",),
    "domain": (
        "domain:domain",
        "domain_addresses:list_domains",
        "domain_addresses:show",
        "domain_addresses:alias",
        "domain_addresses:catch_all",
        "domain_addresses:detail",
        "user_limits:limit_domain",
        "domain_addresses:disable",
        "domain_addresses:enable",
        "domain_addresses:remove",
    ),
    "explain": ("explain:explain",),
    "exposures": ("exposures:exposures",),
    "group": ("aliases:group",),
    "imap": ("imap:imap",),
    "index": ("index:index",),
    "kick": ("sessions:kick",),
    "last": ("explain:last",),
    "mailbox": ("mailbox:mailbox",),
    "quota": ("quota:quota",),
    "reload": ("control:reload",),
    "selftest": ("selftest:selftest",),
    "show": ("inspect:show",),
    "status": ("status:status",),
    "tls": ("tls:tls",),
    "user": ("user:user", "user_limits:limit", "user_limits:show", "app_passwords:app_password"),
    "who": ("sessions:who",),
}
"""Each command's module and name in it; for a group, also those of its commands that have modules of their own."""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, imported at their first use."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            command, *inner = map(_imported, _COMMANDS[name])
            for each in inner:
                assert isinstance(command, click.Group)
                command.add_command(each)
            self._loaded[name] = command
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*_COMMANDS, *self._loaded)))

    def __len__(self) -> int:
        return len({*_COMMANDS, *self._loaded})


def _imported(place: str) -> click.Command:
    module, _, name = place.partition(":")
    command = getattr(importlib.import_module(f"mailserver.cli.{module}"), name)
    assert isinstance(command, click.Command)
    return command


def _print_version(ctx: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if requested:
        from mailserver.version import version_line  # noqa: PLC0415 - it loads OpenSSL

        click.echo(version_line())
        ctx.exit()


@click.group(
    cls=FullHelpGroup,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Administer a mail server. It is started by `twistd mailserver --config FILE`."""
