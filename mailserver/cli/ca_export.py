"""`mailserver ca export` and `ca guide`: the authority's certificate, and instructions to import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding

from mailserver.cli.ca_options import dir_option, expected_errors, opened
from mailserver.cli.cert import listed, signed
from mailserver.cli.options import config_option, load_or_fail
from mailserver.config.model import Config
from mailserver.discovery import ca_guide
from mailserver.discovery.ca_guide import Facts
from mailserver.discovery.services import web_host, web_port
from mailserver.tls.ca.private_ca import PrivateCa
from mailserver.tls.keypair.published_ca import describe


@click.command("export")
@click.argument("form", type=click.Choice(("pem", "der", "mobileconfig")))
@click.option("--out", type=click.File("wb"), default="-", help="File; by default standard output.")
@click.option("--unsigned", is_flag=True, help="Do not sign the profile, for users who cannot read the server's keys.")
@dir_option
@config_option
def export(configuration: Path, directory: Path | None, form: str, out: Any, *, unsigned: bool) -> None:
    """Write the authority's certificate for import. The profile for Apple's systems is signed like that of the web page."""
    with expected_errors():
        authority = opened(directory, configuration)
        der = authority.certificate.public_bytes(Encoding.DER)
        if form == "mobileconfig":
            out.write(_profile(authority, _config_if_there(configuration), unsigned=unsigned))
        else:
            out.write(ca_guide.pem(der) if form == "pem" else der)


@click.command("guide")
@click.argument("client", required=False, type=click.Choice([guide.client for guide in ca_guide.GUIDES]))
@click.option(
    "--users", is_flag=True, help="Include the import of users' certificates; the default if a domain asks for them."
)
@dir_option
@config_option
def guide(configuration: Path, directory: Path | None, client: str | None, *, users: bool) -> None:
    """Print how to import it into CLIENT, or into all clients."""
    with expected_errors():
        authority = opened(directory, configuration)
        config = _config_if_there(configuration)
        chosen = [each for each in ca_guide.GUIDES if client in (None, each.client)]
        for line in ca_guide.lines(facts_of(authority, config, users=users), chosen):
            click.echo(line)


def facts_of(authority: PrivateCa, config: Config | None, *, users: bool = False) -> Facts:
    """Collect the values for guides; without a configuration none of servers. Raises: ClickException."""
    published = describe(authority.certificate)
    until = f"{published.not_after:%Y-%m-%d}"
    if config is None:
        return Facts(published.name, published.der, until, {}, "", has_users=users)
    own = {host for domain in config.domains for host in domain.hosts if not host.startswith("*.")}
    hosts = {row["host"]: row["fingerprint"] for row in listed(config).data if row["host"] in own}
    asks = any(domain.client_certificates != "none" for domain in config.domains)
    return Facts(published.name, published.der, until, hosts, _page(config), has_users=users or asks)


def _profile(authority: PrivateCa, config: Config | None, *, unsigned: bool) -> bytes:
    """Make the profile. Raises: ClickException."""
    facts = facts_of(authority, config)
    profile = ca_guide.profile(facts)
    if unsigned or config is None:
        click.echo("the profile is not signed", err=True)
        return profile
    host = next(iter(facts.hosts), "")
    return signed(config, host, profile)


def _page(config: Config) -> str:
    """Return the URL of the page with the files; "" without one."""
    port = web_port(config)
    host = next(filter(None, (web_host(config, domain) for domain in config.domains)), None)
    if config.tls.private_ca is None or port is None or host is None:
        return ""
    return f"https://{host}{'' if port == 443 else f':{port}'}/ca"


def _config_if_there(configuration: Path) -> Config | None:
    """Load the configuration if there is one: an authority may be on a machine without a server."""
    return load_or_fail(configuration) if configuration.exists() else None
