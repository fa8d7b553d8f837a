"""Keys of every table whose hosts have a certificate: one function each, as inherited attrs fields would come in another order.

`host` is the host of the examples.
"""

from __future__ import annotations

from typing import Any, Final

from mailserver.config.model.keys import setting

_DIRECTORY: Final = "/etc/mailserver/certs"


def certificate(host: str) -> Any:
    """The certificate and its chain."""
    return setting(
        "PEM file with the certificate, then its chain. Without certificate and key, certificates of `mailserver cert add` are served.",
        default=None,
        example=f"{_DIRECTORY}/{host}.pem",
    )


def private_key(host: str) -> Any:
    """The private key."""
    return setting("PEM file of the private key.", default=None, example=f"{_DIRECTORY}/{host}.key", hidden=True)


def second_certificate(host: str) -> Any:
    """A second certificate, for clients that cannot use the first."""
    return setting(
        "Second certificate with a key of the other type, RSA or ECDSA. Each client gets one that it supports.",
        default=None,
        example=f"{_DIRECTORY}/{host}-rsa.pem",
    )


def second_key(host: str) -> Any:
    """The key of the second certificate."""
    return setting(
        "Private key of second_certificate.", default=None, example=f"{_DIRECTORY}/{host}-rsa.key", hidden=True
    )


def key_password_file() -> Any:
    """The file with the keys' password."""
    return setting(
        "File with the password of both keys on its first line.",
        default=None,
        example=f"{_DIRECTORY}/password",
        hidden=True,
    )


def key_password_command() -> Any:
    """The program that prints the keys' password."""
    return setting(
        "Program that prints the password of both keys, with its arguments. It is run without a shell, for at most 10 seconds.",
        default=(),
        example=["/usr/bin/pass", "show", "mail/key"],
        hidden=True,
    )


def acme() -> Any:
    """Certificates from the authority of [acme]."""
    return setting(
        "Obtain and renew the certificates of these hosts from the authority of [acme], one for each host.",
        default=False,
    )
