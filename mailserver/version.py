"""The version of the server and of its main dependencies, for bug reports."""

from __future__ import annotations

import platform
from importlib import metadata

from cryptography.hazmat.backends.openssl.backend import backend

from mailserver import __version__


def version_line() -> str:
    """The line `mailserver 1.2.3 (Python ..., Twisted ..., OpenSSL ...)`, with the OpenSSL that serves TLS."""
    openssl = backend.openssl_version_text().removeprefix("OpenSSL ").partition(" ")[0]
    return (
        f"mailserver {__version__} (Python {platform.python_version()}, Twisted {metadata.version('twisted')},"
        f" OpenSSL {openssl})"
    )
