"""`mailserver cert create` and `cert request`: new keys, with certificates of the private authority or with requests."""

from __future__ import annotations

from pathlib import Path

import click

from mailserver.cli.ca_options import (
    crl_url_of,
    crl_url_option,
    dir_option,
    expected_errors,
    now,
    opened,
    passphrase_of,
    passphrase_option,
    refuse_existing,
    unlocked,
    write,
)
from mailserver.cli.cert import offer
from mailserver.cli.options import config_option, load_or_fail
from mailserver.tls.ca import requests
from mailserver.tls.ca.authority import DAYS, KEY_TYPES, MOST_DAYS, key_pem, make_key
from mailserver.tls.ca.names import address_of, hosts_of
from mailserver.tls.ca.pkcs12 import make_pkcs12
from mailserver.tls.changes.transaction import not_addable

_FILE_PROMPT = "Password of the file"

_key_type_option = click.option("--key-type", type=click.Choice(KEY_TYPES), default="p256", show_default=True)
_out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the new files, which are named after the first name; by default the current one.",
)
_replace_option = click.option("--replace", "replaces", is_flag=True, help="Overwrite existing files.")


@click.command("create")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_key_type_option
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=DAYS, show_default=True)
@_out_option
@_replace_option
@click.option("--activate", is_flag=True, help="Serve it at once, as `cert add` does; files only with --out.")
@click.option(
    "--form",
    type=click.Choice(("old", "new", "pem")),
    default="old",
    show_default=True,
    help="For a user: PKCS #12 for every key store, PKCS #12 with AES-256, or two files in PEM.",
)
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For a user: file whose first line is the password of the PKCS #12; otherwise the command asks for it.",
)
@crl_url_option
@passphrase_option
@dir_option
@config_option
def create(
    configuration: Path,
    directory: Path | None,
    *,
    names: tuple[str, ...],
    key_type: str,
    days: int,
    out: Path | None,
    replaces: bool,
    activate: bool,
    form: str,
    password_file: Path | None,
    crl_url: str | None,
    passphrase_file: Path | None,
) -> None:
    """Make a key and a certificate for the host names NAME, or for a user, whose NAME is an address.

    The authority of `mailserver ca init` signs it. A wildcard is `*.` and a domain.
    """
    with expected_errors():
        authority = opened(directory, configuration)
        crl_url = crl_url_of(crl_url, authority, configuration)
        if any("@" in name for name in names):
            if len(names) > 1:
                raise click.UsageError("a user's certificate names one address and nothing else")
            if activate:
                raise click.UsageError("--activate is for servers")
            address = address_of(names[0])
            user_files = _user_files((out or Path()) / address.replace("/", "_"), form)
            if not replaces:
                refuse_existing(*user_files)
            signer = unlocked(authority, passphrase_file)
            # Ask before signing: a recorded certificate must not get lost.
            password = None if form == "pem" else passphrase_of(password_file, confirm=True, what=_FILE_PROMPT)
            key = make_key(key_type)
            certificate = authority.sign(
                signer, key.public_key(), [address], "client", days=days, now=now(), crl_url=crl_url
            )
            click.echo(f"made a certificate for {address}, until {certificate.not_valid_after_utc:%Y-%m-%d}")
            if password is None:
                _write_pair(user_files, authority.chain(certificate), key_pem(key))
            else:
                packed = make_pkcs12(address, key, certificate, authority.certificate, password, new=form == "new")
                write(user_files[0], packed, 0o600)
            return
        hosts = hosts_of(names)
        if activate:
            # Check before signing: a recorded certificate should be usable.
            config = load_or_fail(configuration)
            if faults := [fault for host in hosts if (fault := not_addable(config, host))]:
                raise click.ClickException("\n".join(faults))
        files = None if activate and out is None else _pair_files((out or Path()) / hosts[0].replace("*", "_"))
        if files is not None and not replaces:
            refuse_existing(*files)
        key = make_key(key_type)
        signer = unlocked(authority, passphrase_file)
        certificate = authority.sign(signer, key.public_key(), hosts, "server", days=days, now=now(), crl_url=crl_url)
        click.echo(f"made a certificate for {', '.join(hosts)}, until {certificate.not_valid_after_utc:%Y-%m-%d}")
        chain, private = authority.chain(certificate), key_pem(key)
        if files is not None:
            _write_pair(files, chain, private)
    if activate:
        offer(configuration, hosts, chain, private, reason=f"made by {authority.name}")


@click.command("request")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_key_type_option
@_out_option
@_replace_option
def request(names: tuple[str, ...], key_type: str, *, out: Path | None, replaces: bool) -> None:
    """Make a key, and a request (PKCS #10) for another authority to sign, for the host names NAME.

    `mailserver cert add` then serves the signed certificate with this key.
    """
    with expected_errors():
        hosts = hosts_of(names)
        where = (out or Path()) / hosts[0].replace("*", "_")
        certificate, key_file = _pair_files(where)
        file = certificate.with_name(f"{where.name}.csr")
        if not replaces:
            refuse_existing(key_file, file)
        key = make_key(key_type)
        write(key_file, key_pem(key), 0o600)
        write(file, requests.make_request(key, hosts), 0o644)


def _user_files(where: Path, form: str) -> tuple[Path, ...]:
    return _pair_files(where) if form == "pem" else (where.with_name(f"{where.name}.p12"),)


def _pair_files(where: Path) -> tuple[Path, Path]:
    return where.with_name(f"{where.name}.pem"), where.with_name(f"{where.name}.key")


def _write_pair(files: tuple[Path, ...], chain: bytes, private: bytes) -> None:
    certificate, key = files
    write(key, private, 0o600)
    write(certificate, chain, 0o644)
