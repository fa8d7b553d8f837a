"""`mailserver ca`: a private authority, whose certificate mail clients import."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mailserver.cli.ca_export import facts_of
from mailserver.cli.ca_options import (
    DIRECTORY,
    crl_url_of,
    crl_url_option,
    dir_option,
    expected_errors,
    make_state_directory,
    now,
    opened,
    passphrase_of,
    passphrase_option,
    read,
    unlocked,
    write,
)
from mailserver.cli.columns import print_table
from mailserver.cli.control import NotRunning, ask, reload_server
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.tls.ca import private_ca, requests
from mailserver.tls.ca.authority import AUTHORITY_DAYS, DAYS, KEY_TYPES, MOST_DAYS, certificate_pem
from mailserver.tls.ca.names import domain_of
from mailserver.tls.ca.private_ca import LIST_DAYS, REASONS, PrivateCa
from mailserver.tls.ca.records import Record
from mailserver.tls.changes.transaction import not_addable
from mailserver.tls.keypair.pem import MAX_FILE
from mailserver.tls.keypair.published_ca import LIST

_MOST_AUTHORITY_DAYS = 9131
"""About 25 years."""

_MOST_NAME = 64
"""Maximum length of a name (RFC 5280 appendix A, ub-common-name)."""

_reload_option = click.option("--reload", "reloads", is_flag=True, help="Have a running server load the new list.")


@click.group("ca", cls=FullHelpGroup)
def ca() -> None:
    """A private authority, for servers and for certificates that users log in with."""


@ca.command("init")
@click.option("--name", help="Its name, as key stores show it; by default `Authority of` and the host name.")
@click.option("--key-type", type=click.Choice(KEY_TYPES), default="p256", show_default=True)
@click.option("--days", type=click.IntRange(1, _MOST_AUTHORITY_DAYS), default=AUTHORITY_DAYS, show_default=True)
@click.option(
    "--only", multiple=True, metavar="DOMAIN", help="Sign only for this domain and its subdomains. Repeatable."
)
@click.option("--passphrase", "asks", is_flag=True, help="Encrypt its key; the command asks for a passphrase.")
@passphrase_option
@dir_option
@config_option
def init(
    configuration: Path,
    directory: Path | None,
    *,
    name: str | None,
    key_type: str,
    days: int,
    only: tuple[str, ...],
    asks: bool,
    passphrase_file: Path | None,
) -> None:
    """Make an authority, or adopt one made elsewhere, with `ca.pem` and `ca.key` in DIR."""
    with expected_errors():
        if directory is None:
            config = load_or_fail(configuration)
            make_state_directory(config)
            directory = config.server.state_dir / DIRECTORY
            name = name or f"Authority of {config.server.hostname}"
        if not name:
            raise click.UsageError("with --dir it needs a --name")
        if len(name) > _MOST_NAME or not name.isprintable():
            raise click.BadParameter(f"must be at most {_MOST_NAME} printable letters", param_hint="--name")
        passphrase = passphrase_of(passphrase_file, confirm=True) if asks or passphrase_file else None
        domains = [domain_of(each) for each in only]
        is_new = private_ca.create(
            directory, name, key_type=key_type, days=days, only=domains, passphrase=passphrase, now=now()
        )
        click.echo(f"{'made' if is_new else 'adopted'} the authority in {directory}")
        if not is_new:
            click.echo("certificates that it issued before are not recorded; its list stays in force", err=True)
        _describe(private_ca.open_ca(directory))


@ca.command("show")
@click.option("--pem", is_flag=True, help="The certificate alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@dir_option
@config_option
def show(configuration: Path, directory: Path | None, *, pem: bool, as_json: bool) -> None:
    """Show the authority's name, fingerprints and end."""
    with expected_errors():
        authority = opened(directory, configuration)
        if as_json:
            facts = {
                name.lower().replace("-", "").replace(" ", "_"): value for name, value in _facts(authority).items()
            }
            click.echo(json.dumps(facts, indent=2))
        elif pem:
            click.echo(certificate_pem(authority.certificate).decode().rstrip())
        else:
            _describe(authority)


@ca.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@dir_option
@config_option
def list_(configuration: Path, directory: Path | None, *, as_json: bool) -> None:
    """List the certificates that it has issued, the newest first."""
    with expected_errors():
        records = opened(directory, configuration).records()
        try:
            found = records.all()
        finally:
            records.close()
    rows = [_row(record) for record in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("SERIAL", "FOR", "NAMES", "UNTIL", "STATE", "REASON"),
        [
            (
                str(row["serial"]),
                str(row["purpose"]),
                ", ".join(record.names),
                str(row["until"])[:10],
                str(row["state"]),
                record.reason or "",
            )
            for record, row in zip(found, rows, strict=True)
        ],
    )


@ca.command("sign")
@click.argument("request", type=click.File("rb"))
@click.option("--client", is_flag=True, help="Allow a user's certificate, which names the user's address.")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=DAYS, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File; by default standard output.")
@crl_url_option
@passphrase_option
@dir_option
@config_option
def sign(
    configuration: Path,
    directory: Path | None,
    *,
    request: Any,
    client: bool,
    days: int,
    out: Path | None,
    crl_url: str | None,
    passphrase_file: Path | None,
) -> None:
    """Sign the request (PKCS #10) of somebody who keeps the key. Its extensions are ignored, except the names."""
    with expected_errors():
        try:
            asked = requests.parse_request(read(request, MAX_FILE))
        except requests.BadSigningRequest as bad:
            raise click.ClickException(f"{request.name} {bad}") from bad
        if asked.purpose == "client" and not client:
            raise click.ClickException(
                f"it requests a certificate to log in as {asked.names[0]}: if that user sent it, add --client"
            )
        authority = opened(directory, configuration)
        crl_url = crl_url_of(crl_url, authority, configuration)
        signer = unlocked(authority, passphrase_file)
        made = authority.sign(
            signer, asked.public_key, asked.names, asked.purpose, days=days, now=now(), crl_url=crl_url
        )
        pem = authority.chain(made)
        click.echo(f"signed for {', '.join(asked.names)}, until {made.not_valid_after_utc:%Y-%m-%d}", err=True)
        if out is None:
            click.echo(pem.decode().rstrip())
        else:
            write(out, pem, 0o644)


@ca.command("revoke")
@click.argument("which", metavar="SERIAL|NAME")
@click.option("--reason", type=click.Choice(REASONS), default="unspecified", show_default=True)
@click.option("--all", "everything", is_flag=True, help="All certificates of that name.")
@_reload_option
@passphrase_option
@dir_option
@config_option
def revoke(
    configuration: Path,
    directory: Path | None,
    *,
    which: str,
    reason: str,
    everything: bool,
    reloads: bool,
    passphrase_file: Path | None,
) -> None:
    """Revoke a certificate, and write a new revocation list."""
    with expected_errors():
        authority = opened(directory, configuration)
        found = _chosen(authority, which, everything=everything)
        if not found:
            authority.renew_list(unlocked(authority, passphrase_file), authority.list_days, now())
            click.echo(f"{which}: was revoked before, and is now on the list")
            _report_list(authority, configuration, reloads=reloads)
            return
        authority.revoke(unlocked(authority, passphrase_file), found, reason, now())
        for record in found:
            click.echo(f"revoked {record.serial} of {', '.join(record.names)}")
        _warn_if_served(found, configuration)
        _report_list(authority, configuration, reloads=reloads)


@ca.command("crl")
@click.option("--days", type=click.IntRange(1, AUTHORITY_DAYS), default=LIST_DAYS, show_default=True)
@_reload_option
@passphrase_option
@dir_option
@config_option
def crl(
    configuration: Path,
    directory: Path | None,
    *,
    days: int,
    reloads: bool,
    passphrase_file: Path | None,
) -> None:
    """Write a new revocation list (RFC 5280 5), before the old one ends."""
    with expected_errors():
        authority = opened(directory, configuration)
        made = authority.renew_list(unlocked(authority, passphrase_file), days, now())
        click.echo(f"{len(made)} certificates revoked; the list ends on {made.next_update_utc:%Y-%m-%d}")
        _report_list(authority, configuration, reloads=reloads)


def _describe(authority: PrivateCa) -> None:
    for name, value in _facts(authority).items():
        click.echo(f"{name + ':':13}{value}")


def _facts(authority: PrivateCa) -> dict[str, str]:
    facts = facts_of(authority, None)
    return {
        "name": facts.name,
        "until": facts.until,
        "SHA-256": facts.sha256,
        "SHA-1": facts.sha1,
        "signs for": ", ".join(authority.only) or "any name",
        "certificate": str(authority.directory / private_ca.CERTIFICATE),
        "list": str(authority.directory / LIST),
    }


def _chosen(authority: PrivateCa, which: str, *, everything: bool) -> list[Record]:
    """Return the certificates to revoke; none if they were revoked and only the list is old. Raises: ClickException."""
    records = authority.records()
    try:
        found = records.find(which)
    finally:
        records.close()
    if not found:
        raise click.ClickException(f"{which}: no certificate has that name or number; see `mailserver ca list`")
    good = [record for record in found if record.state(now()) == "valid"]
    if not good and not {record.serial for record in found}.isdisjoint(
        record.serial for record in authority.unlisted()
    ):
        return []
    if not good:
        raise click.ClickException(f"{which}: is {found[0].state(now())} already")
    if len(good) > 1 and not everything:
        serials = ", ".join(record.serial for record in good)
        raise click.ClickException(f"{which}: has {len(good)} certificates, {serials}: name one, or add --all")
    return good


def _warn_if_served(revoked: list[Record], configuration: Path) -> None:
    """Warn if a server still uses a revoked certificate: no server checks its own against the list."""
    try:
        config = load_or_fail(configuration)
        rows = ask(config, "cert-list").data
    except (click.ClickException, NotRunning):
        return  # the authority may belong to another machine
    except (OSError, ValueError) as error:
        click.echo(f"the server did not say whether it serves the certificate: {error}", err=True)
        return
    bad = {record.certificate for record in revoked}
    for row in rows:
        chains = [row[name] for name in ("certificate", "second_certificate") if row[name] is not None]
        if bad.isdisjoint(
            x509.load_pem_x509_certificate(chain.encode()).public_bytes(Encoding.DER) for chain in chains
        ):
            continue
        host = row["host"]
        if not_addable(config, host) is None:
            cure = f"`mailserver cert create {shlex.quote(host)} --activate` replaces it by one with a new key"
        else:
            cure = f"replace the files of its [[domain]] by a certificate with a new key (`mailserver cert create {shlex.quote(host)}`)"
        click.echo(f"{host} is still served with it: {cure}", err=True)


def _report_list(authority: PrivateCa, configuration: Path, *, reloads: bool) -> None:
    """Report the new list, and load it into the server on request."""
    click.echo(f"wrote {authority.directory / LIST}")
    if not reloads:
        click.echo("a server that has it as client_crl loads it within seconds, or at once with --reload")
        return
    reload_server(load_or_fail(configuration), "the list is written", "it will load the list when started")


def _row(record: Record) -> dict[str, object]:
    def stamp(seconds: int) -> str:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()

    return {
        "serial": record.serial,
        "purpose": record.purpose,
        "names": list(record.names),
        "issued": stamp(record.time),
        "until": stamp(record.until),
        "state": record.state(now()),
        "revoked": None if record.revoked is None else stamp(record.revoked),
        "reason": record.reason,
    }
