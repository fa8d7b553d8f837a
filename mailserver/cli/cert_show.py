"""`mailserver cert show`: the certificate of one host name in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailserver.cli.cert import listed_by_server_or_file, moment, text
from mailserver.cli.columns import plain
from mailserver.cli.options import config_option
from mailserver.cli.sessions import finish
from mailserver.tls.state.expiry import in_days


@click.command("show")
@click.argument("host", metavar="NAME")
@click.option("--pem", is_flag=True, help="Only the certificate and its chain.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as in `cert list --json`.")
@config_option
def show_certificate(configuration: Path, host: str, *, pem: bool, as_json: bool) -> None:
    """Show the certificate of NAME."""
    answer = listed_by_server_or_file(configuration)
    row = next((row for row in answer.data if row["host"] == host.lower()), None)
    if row is None:
        known = ", ".join(row["host"] for row in answer.data)
        raise click.ClickException(f"{host} is not served; there are {known or 'no hosts'}")
    if as_json:
        click.echo(json.dumps(row, indent=2))
    elif pem:
        click.echo(row["certificate"].rstrip())
    else:
        for name, value in (*_of_host(row), *_of_pairs(row)):
            click.echo(f"{name + ':':16}{plain(value) if value else ''}".rstrip())
    finish(answer)


def _of_host(row: dict[str, Any]) -> list[tuple[str, str]]:
    left = "ended" if row["warning"] == 0 else in_days(row["days_left"]) + ", ends soon" * (row["warning"] is not None)
    return [
        ("host", row["host"] + " (default)" * row["default"]),
        ("domain", row["domain"]),
        ("from", row["origin"]),
        ("until", f"{row['not_after'][:16].replace('T', ' ')} UTC, {left}"),
        ("activation", text(row["activation"])),
        ("since", moment(row["since"])),
        ("reason", text(row["reason"])),
    ]


def _of_pairs(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Describe the certificate, and the second one with the other key type."""
    found = []
    for word, pem in (("", row["certificate"]), ("second ", row["second_certificate"])):
        if pem is None:
            continue
        certificate, *chain = x509.load_pem_x509_certificates(pem.encode())
        behind = [each.subject.rfc4514_string() for each in chain]
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        found += [
            (f"{word}names", ", ".join(_names(certificate))),
            (f"{word}key", _key(certificate)),
            (f"{word}issuer", certificate.issuer.rfc4514_string()),
            (f"{word}chain", "; ".join(behind) or "none"),
            (f"{word}dates", f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"),
            (f"{word}SHA-256", certificate.fingerprint(hashes.SHA256()).hex()),
        ]
    return found


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in names if isinstance(each, x509.DNSName | x509.IPAddress)]


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return f"ECDSA, {key.curve.name}"
