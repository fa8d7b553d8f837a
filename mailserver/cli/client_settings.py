"""`mailserver client-settings`: the settings to enter into a mail client."""

from __future__ import annotations

import io
import json
from pathlib import Path

import attrs
import click
import segno

from mailserver.cli.columns import print_table
from mailserver.cli.options import config_option, load_or_fail, suggestion
from mailserver.config.model import Config, Domain
from mailserver.discovery.services import Service, find_domain, services, split_address
from mailserver.discovery.wording import KIND_WORDS, choices, muttrc, profile_link, security


@click.command("client-settings")
@click.argument("user")
@click.option("--qr/--no-qr", default=True, help="Also show the link to the Apple profile as a QR code.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@config_option
def client_settings(configuration: Path, user: str, *, qr: bool, as_json: bool) -> None:
    """Print the settings of USER for mail clients. The command does not check whether USER exists."""
    config = load_or_fail(configuration)
    address, domain, offered = _offered(config, user)
    link = profile_link(config, domain, address)
    if as_json:
        settings = {"user": address, "services": [attrs.asdict(each) for each in offered], "profile": link}
        click.echo(json.dumps(settings, indent=2))
        return
    click.echo(f"User name: {address}")
    click.echo("Password: the user's own, as a normal password, only over TLS\n")
    print_table(
        ("", "SERVER", "PORT", "SECURITY"),
        [(KIND_WORDS[each.kind], each.host, str(each.port), security(each)) for each in offered],
    )
    click.echo("\nThe first of each kind is the best. Mail clients call it:\n")
    best = {each.kind: each for each in reversed(offered)}
    kinds = [kind for kind in KIND_WORDS if kind in best]
    words = {kind: choices(best[kind]) for kind in kinds}
    print_table(
        ("", *(f"{KIND_WORDS[kind]} {best[kind].port}" for kind in kinds)),
        [(row[0].program, *(choice.words for choice in row)) for row in zip(*words.values(), strict=True)],
    )
    click.echo("\nmutt:\n")
    for line in muttrc(address, offered):
        click.echo(f"    {line}")
    if link is None:
        click.echo("\nThere is no profile for Apple Mail: no listener of protocol https serves it.")
        return
    click.echo(f"\nProfile for Apple Mail, to open on the device:\n\n    {link}\n")
    if qr:
        drawn = io.StringIO()
        segno.make(link, error="m").terminal(out=drawn, compact=True)
        click.echo(drawn.getvalue())


def _offered(config: Config, user: str) -> tuple[str, Domain, tuple[Service, ...]]:
    address = user if "@" in user else f"{user}@{config.auth.default_domain}"
    parts = split_address(address)
    if parts is None:
        raise click.ClickException(f"{user} is not an address; without a domain it needs [auth] default_domain")
    domain = find_domain(config, parts[1])
    if domain is None:
        known = [each.name for each in config.domains]
        raise click.ClickException(f"no [[domain]] is called {parts[1]}{suggestion(parts[1], known)}")
    offered = services(config, domain)
    if not offered:
        raise click.ClickException(f"{domain.name} has only wildcard hosts, or no listener serves mail")
    return f"{parts[0]}@{domain.name}", domain, offered
