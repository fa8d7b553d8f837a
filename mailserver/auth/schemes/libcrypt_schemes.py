"""Schemes that only crypt(3) of the C library verifies: yescrypt, gost-yescrypt, scrypt (`$7$`), MD5-crypt.

Debian stores new passwords of its own users with yescrypt. In a users file these entries have `{CRYPT}` or no scheme;
Dovecot has a scheme name only for MD5-crypt.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Final

from mailserver.auth.schemes import libcrypt
from mailserver.auth.schemes.scheme import BadHash, Scheme

MAX_YESCRYPT_KIB: Final = 256 * 1024
"""Largest memory times parallel and repeated passes of a yescrypt or scrypt entry, KiB."""

_LETTERS = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_YESCRYPT = re.compile(rb"\$g?y\$([./A-Za-z0-9]{3,40})\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}")
_SCRYPT = re.compile(rb"\$7\$([./A-Za-z0-9]{11})[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}")
_MD5_CRYPT = re.compile(rb"\$1\$[!-#%-9;-~]{0,8}\$[./A-Za-z0-9]{22}")


class _Parameters:
    """Numbers encoded in the letters of yescrypt settings (crypt(5))."""

    def __init__(self, text: bytes) -> None:
        self._values = [_LETTERS.index(each) for each in text]

    @property
    def left(self) -> bool:
        """Is there another letter?"""
        return bool(self._values)

    def fixed(self, letters: int) -> int:
        """A number of a fixed count of letters, the lowest six bits first. Raises: BadHash."""
        return sum(self._take() << (6 * place) for place in range(letters))

    def next(self, least: int) -> int:
        """A number of variable length, given by its first letter, from `least` on. Raises: BadHash."""
        first = self._take()
        number, start, end, more = least, 0, 47, 0
        while first > end:
            number += (end + 1 - start) << (6 * more)
            start, end, more = end + 1, end + 1 + (62 - end) // 2, more + 1
        number += (first - start) << (6 * more)
        for place in reversed(range(more)):
            number += self._take() << (6 * place)
        return number

    def _take(self) -> int:
        if not self._values:
            raise BadHash("the parameters of the hash end too soon")
        return self._values.pop(0)


def _yescrypt_check(family: str, head: bytes) -> Callable[[bytes], int]:
    def check(body: bytes) -> int:
        fields = _YESCRYPT.fullmatch(body)
        if fields is None or not body.startswith(head):
            raise BadHash(f"not a {family.lower()} hash")
        _demand_library(family)
        parameters = _Parameters(fields[1])
        parameters.next(0)  # flags
        logarithm, block = parameters.next(1), parameters.next(1)
        parallel, passes = 1, 1
        if parameters.left:
            which = parameters.next(1)
            parallel = parameters.next(2) if which & 1 else 1
            passes = 1 + (parameters.next(1) if which & 2 else 0)
            if which & ~3:
                raise BadHash(f"a {family.lower()} hash with upgrades or a ROM is not verified here")
        return _bounded(logarithm, block, parallel, passes)

    return check


def _scrypt_check(body: bytes) -> int:
    fields = _SCRYPT.fullmatch(body)
    if fields is None:
        raise BadHash("not a scrypt hash")
    _demand_library("SCRYPT")
    parameters = _Parameters(fields[1])
    return _bounded(parameters.fixed(1), parameters.fixed(5), parameters.fixed(5), 1)


def _bounded(logarithm: int, block: int, parallel: int, passes: int) -> int:
    """Memory of scrypt, KiB. Raises: BadHash beyond the bounds."""
    # 64 exceeds every bound; larger shifts would be expensive.
    octets = 128 * block * parallel * passes << min(logarithm, 64)
    if octets > MAX_YESCRYPT_KIB * 1024:
        raise BadHash(f"memory times parallel and repeated passes must be at most {MAX_YESCRYPT_KIB} KiB")
    if not octets:
        raise BadHash("the hash has a parameter of zero")
    return max(1, octets // 1024)


def _md5_crypt_check(body: bytes) -> int:
    if _MD5_CRYPT.fullmatch(body) is None:
        raise BadHash("not an MD5-crypt hash")
    _demand_library("MD5-CRYPT")
    return 0


def _demand_library(family: str) -> None:
    if not libcrypt.knows(family):
        raise BadHash(
            f"a {family.lower()} hash needs a libcrypt that supports it, and this machine has none:"
            " install libxcrypt (Debian: libcrypt1), or set the password again"
        )


def _verify(body: bytes, password: bytes) -> bool:
    made = libcrypt.crypt(password, body)
    # None: the password is too long for such a hash, or the library refuses the setting.
    return made is not None and hmac.compare_digest(made, body)


CRYPT_FORMS: Final = (
    Scheme("YESCRYPT", False, _yescrypt_check("YESCRYPT", b"$y$"), _verify),
    Scheme("GOST-YESCRYPT", False, _yescrypt_check("GOST-YESCRYPT", b"$gy$"), _verify),
    Scheme("SCRYPT", False, _scrypt_check, _verify),
)
"""Schemes that have no name in Dovecot."""
SCHEMES: Final = (Scheme("MD5-CRYPT", False, _md5_crypt_check, _verify, is_weak=True),)
