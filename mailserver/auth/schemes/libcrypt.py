"""crypt(3) of the C library, for hashes that no Python library verifies.

With libxcrypt (crypt_rn) each call has its own buffer, so calls may run in several threads. The old crypt() has one static
buffer, and only one thread of a process may call it. Neither holds Python's lock.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable
from typing import Final

MAX_PASSWORD: Final = 511
"""Longest password that libxcrypt accepts, octets."""
_DATA: Final = 32768
"""Octets of struct crypt_data (crypt(3))."""

Crypt = Callable[[bytes, bytes], bytes | None]
"""(password, setting or hash) -> hash."""

_PASSWORD: Final = b"Hello world!"
_KNOWN: Final = {
    "SHA256-CRYPT": b"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
    "YESCRYPT": b"$y$j75T$abcd$asLYZt5yFMNLuIzWmhXftv5HSGNQNrDv1hX.EhxQFO2",
    "GOST-YESCRYPT": b"$gy$j75T$abcd$raJn8A6qWCeEo5gpXPwrgVJ1TuptOGfIOQ3GiaWbnz5",
    "SCRYPT": b"$7$46..../....saltsalt$G6VFH1VMCtxHKLFnotBmXiEXmxK81C5VDMqaj4BnY8D",
    "MD5-CRYPT": b"$1$salt$wa8aFuC3rkp5bjoBIGTc41",
}
"""A cheap hash of `_PASSWORD` for each family. A library may lack a family, or have a stub of it."""


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """Hash a password with a setting; None if there is no library, or it refuses one of the two."""
    library = _library()
    if library is None or len(password) > MAX_PASSWORD:
        return None
    made = library(password, setting)
    return None if made is None or made.startswith(b"*") else made


@functools.cache
def knows(family: str) -> bool:
    """Does the library of this machine verify hashes of that family? Some milliseconds the first time."""
    known = _KNOWN[family]
    return crypt(_PASSWORD, known) == known


@functools.cache
def _library() -> Crypt | None:
    # glibc and libxcrypt with the old interface; libxcrypt without it; any other.
    for name in ("libcrypt.so.1", "libcrypt.so.2", ctypes.util.find_library("crypt")):
        function = _open(name)
        # Some libraries lack the SHA families (musl's stub, old BSDs): accept only a correct answer.
        known = _KNOWN["SHA256-CRYPT"]
        if function is not None and function(_PASSWORD, known) == known:
            return function
    return None


def _open(name: str | None) -> Crypt | None:
    """crypt() of that library, with its own buffer if possible; None if there is no such library."""
    if name is None:
        return None
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    if hasattr(library, "crypt_rn"):
        return _with_buffer(library.crypt_rn)
    if not hasattr(library, "crypt"):
        return None
    function: Crypt = library.crypt
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    return function


def _with_buffer(function: ctypes._NamedFuncPointer) -> Crypt:
    function.restype = ctypes.c_char_p
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)

    def crypt_in_buffer(password: bytes, setting: bytes) -> bytes | None:
        buffer = ctypes.create_string_buffer(_DATA)
        try:
            made: bytes | None = function(password, setting, buffer, _DATA)
        finally:
            # It holds the password and intermediate values.
            ctypes.memset(buffer, 0, _DATA)
        return made

    return crypt_in_buffer
