"""`mailserver ca renew`: renewals by hand, as a running server does them if the authority's key has no passphrase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from mailserver.cli.ca_options import crl_url_of, dir_option, expected_errors, now, opened, passphrase_option, unlocked
from mailserver.cli.cert import listed, offer
from mailserver.cli.options import config_option, load_or_fail
from mailserver.tls.ca import renewal
from mailserver.tls.ca.private_ca import PrivateCa
from mailserver.tls.ca.renewal import Renewable, ServedChains
from mailserver.tls.keypair.published_ca import LIST


@click.command("renew")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only list what is due.")
@passphrase_option
@dir_option
@config_option
def renew(
    configuration: Path, directory: Path | None, *, names: tuple[str, ...], dry_run: bool, passphrase_file: Path | None
) -> None:
    """Renew this server's due certificates and the revocation list; with host names NAME, only their certificates.

    Names, life and key stay the same. A server does it itself if [tls] private_ca names the authority's certificate and
    its key is in the same directory, without a passphrase.
    """
    with expected_errors():
        authority = opened(directory, configuration)
        config, present = load_or_fail(configuration), now()
        answer = listed(config)
        served = {row["host"]: ServedChains(row["origin"], _chains(row)) for row in answer.data}
        found = renewal.renewables(config, served)
        if names:
            due = _named(authority, found, names)
        else:
            due = [each for each in found if any(renewal.is_due(authority, chain, present) for chain in each.chains)]
        with_list = not names and renewal.list_is_due(authority, present)
        what = [*(", ".join(each.hosts) for each in due), *([LIST] if with_list else [])]
        if words := renewal.ends_soon(authority.certificate.not_valid_after_utc, present):
            click.echo(words, err=True)
        if dry_run or not what:
            click.echo("\n".join(what) if what else "nothing is due")
            return
        signer, crl_url = unlocked(authority, passphrase_file), crl_url_of(None, authority, configuration)
        failed = False
        for each in due:
            # A failure must not prevent the other renewals.
            try:
                with expected_errors():
                    renewed = renewal.renew(authority, signer, each, present, crl_url=crl_url, all_of_it=bool(names))
                    _serve(configuration, authority, each, renewed)
            except click.ClickException as fault:
                failed = True
                click.echo(f"{', '.join(each.hosts)}: cannot be renewed: {fault.message}", err=True)
            except SystemExit:  # `cert add` has printed the reason
                failed = True
        if with_list:
            made = renewal.renew_list(authority, signer, present)
            click.echo(f"renewed {authority.directory / LIST}, until {made.next_update_utc:%Y-%m-%d}")
        if any(each.files for each in due) and not config.tls.follow_files:
            click.echo("the server loads the files at `mailserver reload`")
        if failed:
            raise SystemExit(1)


def _serve(configuration: Path, authority: PrivateCa, each: Renewable, renewed: Renewable) -> None:
    """Write the certificates into their files, or add them. Raises: CaFault, OSError, ClickException; SystemExit if refused."""
    if each.files:
        for path in renewal.write(each, renewed):
            click.echo(f"renewed {path} of {', '.join(each.hosts)}")
        return
    first, *rest = renewed.chains
    second = (rest[0], b"") if rest else None
    offer(configuration, each.hosts, first, b"", second=second, reason=f"renewed by {authority.name}")


def _named(authority: PrivateCa, found: Sequence[Renewable], names: Sequence[str]) -> list[Renewable]:
    """Select by host name. Raises: ClickException."""
    wanted = [name.lower() for name in names]
    ours = [each for each in found if renewal.has_signed(authority, each.first)]
    known = {host for each in ours for host in each.hosts}
    if unknown := [name for name in wanted if name not in known]:
        there = ", ".join(sorted(known)) or "none"
        raise click.ClickException(
            f"{', '.join(unknown)}: is not served with a certificate of this authority, or with a fallback "
            f"(`mailserver cert list`); there are {there}"
        )
    return [each for each in ours if not set(each.hosts).isdisjoint(wanted)]


def _chains(row: dict[str, str]) -> tuple[bytes, ...]:
    return tuple(row[name].encode() for name in ("certificate", "second_certificate") if row[name] is not None)
