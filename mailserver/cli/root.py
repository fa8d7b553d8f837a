"""The `mailserver` command and its table of subcommands."""

from __future__ import annotations

import click

from mailserver.cli.acme import acme
from mailserver.cli.auth import auth
from mailserver.cli.ca import ca
from mailserver.cli.ca_export import export, guide
from mailserver.cli.ca_renew import renew
from mailserver.cli.cert import cert
from mailserver.cli.cert_create import create, request
from mailserver.cli.cert_show import show_certificate
from mailserver.cli.client_settings import client_settings
from mailserver.cli.clients import clients
from mailserver.cli.control import reload
from mailserver.cli.demo import demo
from mailserver.cli.dns import dns
from mailserver.cli.domain import domain
from mailserver.cli.exposures import exposures
from mailserver.cli.index import index
from mailserver.cli.inspect import check, show
from mailserver.cli.mailbox import mailbox
from mailserver.cli.options import FullHelpGroup
from mailserver.cli.selftest import selftest
from mailserver.cli.sessions import kick, who
from mailserver.cli.status import status
from mailserver.cli.tls import tls
from mailserver.cli.user import user
from mailserver.version import version_line


def _print_version(ctx: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if requested:
        click.echo(version_line())
        ctx.exit()


@click.group(cls=FullHelpGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
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


for _command in (
    exposures,
    clients,
    user,
    domain,
    cert,
    ca,
    acme,
    auth,
    check,
    show,
    reload,
    status,
    who,
    kick,
    index,
    mailbox,
    dns,
    client_settings,
    tls,
    selftest,
    demo,
):
    main.add_command(_command)
for _command in (show_certificate, create, request):
    cert.add_command(_command)
for _command in (export, guide, renew):
    ca.add_command(_command)
