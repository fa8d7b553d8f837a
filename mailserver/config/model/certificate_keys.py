"""Keys of every table whose hosts have a certificate: a function for each, as attrs' classes would have them in another order.

`host` is the host of the examples.
"""

from __future__ import annotations

from typing import Any, Final

from mailserver.config.model.keys import setting

_DIRECTORY: Final = "/etc/mailserver/certs"


def certificate(host: str) -> Any:
    """The certificate and its chain."""
    return setting(
        "PEM file: the certificate, then its chain. Without it and key, what `mailserver cert add` has added is served.",
        default=None,
        example=f"{_DIRECTORY}/{host}.pem",
    )


def private_key(host: str) -> Any:
    """Its key."""
    return setting("PEM file of the private key.", default=None, example=f"{_DIRECTORY}/{host}.key", hidden=True)


def second_certificate(host: str) -> Any:
    """One for the clients that cannot use the first."""
    return setting(
        "A second one with a key of the other type, RSA or ECDSA: each client gets what it can use.",
        default=None,
        example=f"{_DIRECTORY}/{host}-rsa.pem",
    )


def second_key(host: str) -> Any:
    """Its key."""
    return setting("The key of second_certificate.", default=None, example=f"{_DIRECTORY}/{host}-rsa.key", hidden=True)


def key_password_file() -> Any:
    """Where the password of the keys is read."""
    return setting(
        "File with the password of both keys on its first line.",
        default=None,
        example=f"{_DIRECTORY}/password",
        hidden=True,
    )


def key_password_command() -> Any:
    """Who else is asked for it."""
    return setting(
        "Program that prints the password of both keys, with its arguments; run without a shell, for at most 10 seconds.",
        default=(),
        example=["/usr/bin/pass", "show", "mail/key"],
        hidden=True,
    )


def acme() -> Any:
    """Whether none of these is needed."""
    return setting(
        "Get these hosts' certificates from the authority of [acme], one for each host, and renew them.", default=False
    )
