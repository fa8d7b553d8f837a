"""`mailserver domain`: domains of the configuration."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path

import click

from mailserver.cli.account_stores import author
from mailserver.cli.accounts import from_configuration
from mailserver.cli.address_names import opened
from mailserver.cli.control import reload_server
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.config import edit, values
from mailserver.config.model import Config
from mailserver.directory import address_changes
from mailserver.directory.model import StoredDomain
from mailserver.idn import ascii_name
from mailserver.system.atomic_file import replace_file
from mailserver.tls.serving import validation


@click.group("domain", cls=FullHelpGroup)
def domain() -> None:
    """Add, list, show, disable and remove domains, and say where mail to their unknown addresses goes."""


@domain.command("add")
@click.argument("name")
@click.option("--host", "hosts", multiple=True, help="Host name for its clients; by default mail.NAME. Repeatable.")
@click.option(
    "--no-host",
    is_flag=True,
    help="Add it to the directory alone: its users connect to the hosts of other domains, and need no certificate.",
)
@config_option
def add(configuration: Path, name: str, hosts: tuple[str, ...], *, no_host: bool) -> None:
    """Add the domain NAME with a self-signed certificate. A running server loads it."""
    config = load_or_fail(configuration)
    # Validate first: the first host becomes a file name.
    name = _validated(values.host_name, name)
    if no_host:
        if hosts:
            raise click.UsageError("--host and --no-host exclude each other")
        accounts = from_configuration(configuration)
        with opened(accounts) as database:
            new = StoredDomain(name, detail=config.lmtp.detail_separator)
            address_changes.add_domain(database, author(), new)
        click.echo(f"added {name} to the directory; its users connect to the hosts of other domains")
        return
    hosts = tuple(_validated(values.host_pattern, host) for host in hosts) or (f"mail.{name}",)
    stem = configuration.resolve().parent / "certs" / hosts[0].replace("*", "_")
    certificate, key = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")
    made = _make_pair(config, hosts, certificate, key)
    try:
        edit.add_domain(configuration, name, hosts, certificate, key)
    except (edit.EditRefused, OSError) as error:
        for path in made:
            path.unlink()
        raise click.ClickException(str(error)) from error
    click.echo(f"added {name}; its clients connect to {', '.join(hosts)}")
    click.echo(f"certificate: {certificate}{' (self-signed)' if made else ' (existed)'}")
    reload_server(config, "the domain is added", "it will serve the domain when started")


def _validated(validate: Callable[[str], str], given: str) -> str:
    bare = given.rstrip(".")
    try:
        return validate(ascii_name(bare) or bare)
    except ValueError as error:
        raise click.ClickException(f"{given!r}: {error}") from error


def _make_pair(config: Config, hosts: tuple[str, ...], certificate: Path, key: Path) -> list[Path]:
    """Make a self-signed certificate and its key unless they exist; return the new files, the key first."""
    if certificate.exists() and key.exists():
        return []
    if certificate.exists() or key.exists():
        raise click.ClickException(f"only one of {certificate} and {key} exists: move it away, or add the other")
    try:
        certificate_pem, key_pem = validation.make_self_signed(hosts)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    owner = None
    # With workers the master, which stays root, reads the files: the service's user needs no key.
    if config.server.user and config.server.workers == 0:
        account = pwd.getpwnam(config.server.user)
        owner = (account.pw_uid, account.pw_gid)
    certificate.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    replace_file(key, key_pem, mode=0o600, owner=owner)
    replace_file(certificate, certificate_pem, mode=0o644, owner=owner)
    return [certificate, key]
