"""Which version this is, and of what it builds on: the first line of any report."""

from __future__ import annotations

import platform
from importlib import metadata

from cryptography.hazmat.backends.openssl.backend import backend

from mailserver import __version__


def version_line() -> str:
    """`mailserver 1.2.3 (Python ..., Twisted ..., OpenSSL ...)`; the OpenSSL is the one that serves TLS."""
    openssl = backend.openssl_version_text().removeprefix("OpenSSL ").partition(" ")[0]
    return (
        f"mailserver {__version__} (Python {platform.python_version()}, Twisted {metadata.version('twisted')},"
        f" OpenSSL {openssl})"
    )
