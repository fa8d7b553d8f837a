"""Does a back end keep the contract of `auth.interfaces`? Asked of one that knows a user and the user's password."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from attrs import frozen
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from mailserver.auth import schemes
from mailserver.auth.interfaces import (
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    IReadsAhead,
    IReloadable,
    IScramKeys,
    ITrustsCertificates,
    TypicalScram,
    User,
)
from mailserver.errors import AuthUnavailable
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import HASHES, derive, prepare
from mailserver.types import Secret


@frozen
class Finding:
    """One sentence of the contract, and what is wrong with the back end's way to keep it; empty if nothing is."""

    promise: str
    fault: str = ""


class DirectHasher:
    """Checks hashes at once, in this process: for commands and tests, where nobody else waits."""

    async def verify(self, stored: str, password: Secret, share: str = "") -> bool:
        """Does the password belong to the entry? Raises: schemes.BadHash."""
        del share
        return schemes.verify(stored, password.reveal())


class _Broken(Exception):
    """What the back end does wrong."""


async def examine(backend: Any, name: str, password: Secret) -> AsyncIterator[Finding]:
    """Try everything that the login service relies on. `name` is normalised, and `password` is its right one.

    Raises nothing of the back end's: whatever it raises, but for AuthUnavailable where that is allowed, is a fault.
    """
    for promise, attempt in _PROMISES:
        try:
            await attempt(backend, name, password)
        except _Broken as broken:
            yield Finding(promise, str(broken))
        except AuthUnavailable:
            yield Finding(promise, "it cannot answer now: AuthUnavailable")
        except Exception as error:
            yield Finding(promise, f"it raises {type(error).__name__}")
        else:
            yield Finding(promise)


async def _answer(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given


def _demand(fulfilled: bool, fault: str) -> None:
    if not fulfilled:
        raise _Broken(fault)


async def _interfaces(backend: Any, _name: str, _password: Secret) -> None:
    for interface in (
        IAuthBackend,
        IHashedPasswords,
        IScramKeys,
        ITrustsCertificates,
        IPasswordsOnly,
        IReloadable,
        IReadsAhead,
    ):
        if interface is IAuthBackend or interface.providedBy(backend):
            try:
                verifyObject(interface, backend)
            except Invalid as error:
                raise _Broken(" ".join(str(error).split())) from error


async def _finds(backend: Any, name: str, _password: Secret) -> None:
    user = await _answer(backend.find_user(name))
    if IPasswordsOnly.providedBy(backend):
        _demand(user is None, "a back end of passwords only answers None")
        return
    _demand(isinstance(user, User), f"the known user is not found: {user!r}")
    _demand(user.name == name, f"the user found has the name {user.name!r}, not the one asked for")
    again = await _answer(backend.find_user(name))
    _demand(again == user, "asked again it gives another user")


async def _unknown(backend: Any, name: str, _password: Secret) -> None:
    stranger = secrets.token_hex(8)
    names = [
        f"{stranger}@example.test",
        stranger,
        f"{name}x",
        name[:-1],
        "x" * 255,
        "é@example.test",
        "%",
        "*",
        "'",
        "\\",
    ]
    for odd in names:
        if odd and odd != name:
            found = await _answer(backend.find_user(odd))
            _demand(found is None, f"a user is found for {odd!r}")


async def _verify(backend: Any, name: str, password: Secret) -> Any:
    user = User(name)
    if not IPasswordsOnly.providedBy(backend):
        user = await _answer(backend.find_user(name)) or user
    return await _answer(backend.verify_password(user, password))


async def _right(backend: Any, name: str, password: Secret) -> None:
    found = await _verify(backend, name, password)
    _demand(found is True, f"the answer to the right password is {found!r}, not True")


async def _wrong(backend: Any, name: str, password: Secret) -> None:
    right = password.reveal()
    for wrong in (
        b"",
        right[:-1],
        right + b"x",
        right + b"\0",
        right + b"\0x",
        right.swapcase() + b".",
        b"\xff\xfe",
        b"x" * schemes.MAX_PASSWORD,
        b"*",
    ):
        if wrong == right:
            continue
        found = await _verify(backend, name, Secret(wrong))
        _demand(found is False, f"the answer to a wrong password of {len(wrong)} octets is {found!r}, not False")


async def _stranger(backend: Any, _name: str, password: Secret) -> None:
    """A user may vanish between the look-up and the check."""
    found = await _answer(backend.verify_password(User(f"{secrets.token_hex(8)}@example.test"), password))
    _demand(found is False, f"the answer for a user that is gone is {found!r}, not False")


async def _hashes(backend: Any, name: str, password: Secret) -> None:
    if not IHashedPasswords.providedBy(backend):
        return
    stored = backend.password_hash(User(name))
    _demand(bool(stored), "the known user has no stored password")
    _demand(schemes.verify(stored or "", password.reveal()), "the stored password does not fit the right one")
    dummy = backend.typical_hash()
    if dummy is not None:
        schemes.parse(dummy)
        _demand(not schemes.verify(dummy, password.reveal()), "the dummy fits a real password")


async def _scram(backend: Any, name: str, password: Secret) -> None:
    if not IScramKeys.providedBy(backend):
        return
    for hash_name in HASHES:
        typical = backend.typical_scram(hash_name)
        _demand(typical is None or isinstance(typical, TypicalScram), f"typical_scram answers {typical!r}")
        stranger = await _answer(backend.scram_keys(User(f"{secrets.token_hex(8)}@example.test"), hash_name))
        _demand(stranger is None, "a user that is gone has SCRAM keys")
        keys = await _answer(backend.scram_keys(User(name), hash_name))
        if keys is None:
            _demand(not (typical and typical.everybody), f"everybody has SCRAM-{hash_name} keys, and the user has none")
            continue
        try:
            prepared = prepare(password.reveal())
        except Unpreparable as error:
            raise _Broken(
                f"the user has SCRAM-{hash_name} keys and a password that cannot have any: {error}"
            ) from error
        made = derive(hash_name, prepared, keys.salt, keys.rounds)
        _demand(made == keys, f"the SCRAM-{hash_name} keys do not fit the right password")


async def _certificates(backend: Any, name: str, _password: Secret) -> None:
    if not ITrustsCertificates.providedBy(backend):
        return
    found = await _answer(backend.may_log_in(User(name)))
    _demand(found is True, f"whether the user may log in by a certificate is answered {found!r}, not True")
    found = await _answer(backend.may_log_in(User(f"{secrets.token_hex(8)}@example.test")))
    _demand(found is False, f"the answer for a user that is gone is {found!r}, not False")


async def _reloads(backend: Any, name: str, password: Secret) -> None:
    if IReloadable.providedBy(backend):
        backend.reload()
        await _finds(backend, name, password)


_PROMISES: tuple[tuple[str, Callable[[Any, str, Secret], Awaitable[None]]], ...] = (
    ("it has the methods of the interfaces it provides", _interfaces),
    ("it finds a user that is there, under the name asked for", _finds),
    ("it finds nobody for names that are not there", _unknown),
    ("it takes the right password", _right),
    ("it takes no other password", _wrong),
    ("it takes no password for a user that is gone", _stranger),
    ("its stored passwords can be checked by the service", _hashes),
    ("its SCRAM keys are of the right password", _scram),
    ("it knows whom a certificate lets in", _certificates),
    ("it can be told to read again", _reloads),
)
