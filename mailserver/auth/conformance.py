"""A conformance test for back ends: does one keep the contract of `auth.interfaces`? It needs a user and its password."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any

from attrs import frozen
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from mailserver.auth.asking import NEW
from mailserver.auth.conformance_trial import CALL_TIME, DEFAULTS, Broken, NoAnswer, NotOffered, Trial, Within, demand
from mailserver.auth.guard_conformance import GUARD_PROMISES
from mailserver.auth.interfaces import (
    DomainEntry,
    Entry,
    IAddresses,
    IAppPasswords,
    IAuthBackend,
    IChanges,
    IDelegates,
    IHashedPasswords,
    IOwnAddresses,
    IPasswordsOnly,
    IReadsAhead,
    IReloadable,
    IScramKeys,
    ITrustsCertificates,
    TypicalScram,
    User,
)
from mailserver.auth.schemes import schemes
from mailserver.config.model import BackendUse
from mailserver.errors import AuthUnavailable
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import HASHES, derive, prepare
from mailserver.types import Secret


@frozen
class Finding:
    """One sentence of the contract, and the back end's fault against it; empty if it keeps it."""

    promise: str
    fault: str = ""
    offered: bool = True
    """The back end provides what the sentence is about."""


class DirectHasher:
    """Checks hashes in this process, without a pool: for commands and tests."""

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """Does the password match the entry? Raises: schemes.BadHash."""
        del share, rank
        return schemes.verify(stored, password.reveal())


async def examine(
    backend: Any,
    name: str,
    password: Secret,
    within: Within,
    *,
    use: BackendUse = DEFAULTS,
    clock: Callable[[], float] = monotonic,
) -> AsyncIterator[Finding]:
    """Test everything that the login service relies on. `name` is normalised, and `password` is the user's.

    `use`: the settings that the configuration gives the back end. `clock`: monotonic seconds.

    A call without an answer in time ends the test. Exceptions of the back end are not raised but reported as faults,
    except AuthUnavailable where it is allowed.
    """
    trial = Trial(backend, name, password, within, use, clock)
    for promise, attempt in (*_PROMISES, *GUARD_PROMISES):
        try:
            await attempt(trial)
        except NotOffered:
            yield Finding(promise, offered=False)
        except Broken as broken:
            yield Finding(promise, str(broken))
        except NoAnswer:
            yield Finding(promise, f"it did not answer within {CALL_TIME:g} s; the rest is not tested")
            return
        except AuthUnavailable:
            yield Finding(promise, "it cannot answer now: AuthUnavailable")
        except Exception as error:
            yield Finding(promise, f"it raises {type(error).__name__}")
        else:
            yield Finding(promise)


async def _interfaces(trial: Trial) -> None:
    for interface in (
        IAuthBackend,
        IHashedPasswords,
        IScramKeys,
        ITrustsCertificates,
        IPasswordsOnly,
        IReloadable,
        IReadsAhead,
        IAddresses,
        IOwnAddresses,
        IAppPasswords,
        IDelegates,
        IChanges,
    ):
        if interface is IAuthBackend or interface.providedBy(trial.backend):
            try:
                verifyObject(interface, trial.backend)
            except Invalid as error:
                raise Broken(" ".join(str(error).split())) from error


async def _finds(trial: Trial) -> None:
    user = await trial.ask(trial.backend.find_user, trial.name)
    if IPasswordsOnly.providedBy(trial.backend):
        demand(user is None, "a back end of passwords only answers None")
        return
    demand(isinstance(user, User), f"the known user is not found: {user!r}")
    demand(user.name == trial.name, f"the user found has the name {user.name!r}, not the one asked for")
    again = await trial.ask(trial.backend.find_user, trial.name)
    demand(again == user, "asked again it gives another user")


async def _unknown(trial: Trial) -> None:
    stranger = secrets.token_hex(8)
    names = [
        f"{stranger}@example.test",
        stranger,
        f"{trial.name}x",
        trial.name[:-1],
        "x" * 255,
        "é@example.test",
        "%",
        "*",
        "'",
        "\\",
    ]
    for odd in names:
        if odd and odd != trial.name:
            found = await trial.ask(trial.backend.find_user, odd)
            demand(found is None, f"a user is found for {odd!r}")


async def _verify(trial: Trial, password: Secret) -> Any:
    user = User(trial.name)
    if not IPasswordsOnly.providedBy(trial.backend):
        user = await trial.ask(trial.backend.find_user, trial.name) or user
    return await trial.ask(trial.backend.verify_password, user, password)


async def _right(trial: Trial) -> None:
    found = await _verify(trial, trial.password)
    demand(found is True, f"the answer to the right password is {found!r}, not True")


async def _wrong(trial: Trial) -> None:
    right = trial.password.reveal()
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
        found = await _verify(trial, Secret(wrong))
        demand(found is False, f"the answer to a wrong password of {len(wrong)} octets is {found!r}, not False")


async def _stranger(trial: Trial) -> None:
    """A user may disappear between lookup and check."""
    found = await trial.ask(trial.backend.verify_password, User(f"{secrets.token_hex(8)}@example.test"), trial.password)
    demand(found is False, f"the answer for a user that does not exist any more is {found!r}, not False")


async def _hashes(trial: Trial) -> None:
    trial.demand_offer(IHashedPasswords)
    stored = await trial.ask(trial.backend.password_hash, User(trial.name))
    demand(bool(stored), "the known user has no stored password")
    demand(schemes.verify(stored or "", trial.password.reveal()), "the stored password does not match the right one")
    dummy = await trial.ask(trial.backend.typical_hash)
    if dummy is not None:
        schemes.parse(dummy)
        demand(not schemes.verify(dummy, trial.password.reveal()), "the dummy matches a real password")


async def _scram(trial: Trial) -> None:
    trial.demand_offer(IScramKeys)
    for hash_name in HASHES:
        typical = await trial.ask(trial.backend.typical_scram, hash_name)
        demand(typical is None or isinstance(typical, TypicalScram), f"typical_scram answers {typical!r}")
        stranger = await trial.ask(trial.backend.scram_keys, User(f"{secrets.token_hex(8)}@example.test"), hash_name)
        demand(stranger is None, "a user that does not exist any more has SCRAM keys")
        keys = await trial.ask(trial.backend.scram_keys, User(trial.name), hash_name)
        if keys is None:
            demand(not (typical and typical.everybody), f"everybody has SCRAM-{hash_name} keys, and the user has none")
            continue
        try:
            prepared = prepare(trial.password.reveal())
        except Unpreparable as error:
            raise Broken(f"the user has SCRAM-{hash_name} keys and a password that cannot have any: {error}") from error
        made = derive(hash_name, prepared, keys.salt, keys.rounds)
        demand(made == keys, f"the SCRAM-{hash_name} keys do not match the right password")


async def _certificates(trial: Trial) -> None:
    trial.demand_offer(ITrustsCertificates)
    found = await trial.ask(trial.backend.may_log_in, User(trial.name))
    demand(found is True, f"whether the user may log in by a certificate is answered {found!r}, not True")
    found = await trial.ask(trial.backend.may_log_in, User(f"{secrets.token_hex(8)}@example.test"))
    demand(found is False, f"the answer for a user that does not exist any more is {found!r}, not False")


async def _addresses(trial: Trial) -> None:
    trial.demand_offer(IAddresses)
    stranger = f"{secrets.token_hex(8)}.test"
    for name in (f"x@{stranger}", f"@{stranger}", secrets.token_hex(8), "x" * 255, "%", "'"):
        found = await trial.ask(trial.backend.find_address, name)
        demand(found is None, f"an address is found for {name!r}")
    domain = await trial.ask(trial.backend.find_domain, stranger)
    demand(domain is None, "a domain is found that nobody has")
    entry = await trial.ask(trial.backend.find_address, trial.name)
    demand(entry is None or _is_entry(entry), f"the answer for the user's own name is {entry!r}")
    domain = await trial.ask(trial.backend.find_domain, trial.name.rpartition("@")[2])
    demand(domain is None or isinstance(domain, DomainEntry), f"the answer for the user's domain is {domain!r}")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, Entry) and all(
        isinstance(each, str) and each == each.lower() for each in (*entry.targets, *entry.senders)
    )


async def _app_passwords(trial: Trial) -> None:
    trial.demand_offer(IAppPasswords)
    for probe in (secrets.token_hex(32), "0" * 64, "", "%", "x" * 1000):
        found = trial.backend.find_app_password(probe)
        demand(found is None, "an app password is found that nobody has, or it does not answer at once")
    for credential in (secrets.token_hex(8), "", "%"):
        found = trial.backend.app_password(credential, User(trial.name))
        demand(found is None, "an app password of the user is found that it has not")


async def _reloads(trial: Trial) -> None:
    trial.demand_offer(IReloadable)
    await trial.ask(trial.backend.reload)
    await _finds(trial)


_PROMISES: tuple[tuple[str, Callable[[Trial], Awaitable[None]]], ...] = (
    ("it has the methods of the interfaces that it provides", _interfaces),
    ("it finds an existing user, under the requested name", _finds),
    ("it finds no user for unknown names", _unknown),
    ("it accepts the right password", _right),
    ("it accepts no other password", _wrong),
    ("it accepts no password for a user that does not exist any more", _stranger),
    ("the service can check its stored passwords", _hashes),
    ("its SCRAM keys belong to the right password", _scram),
    ("it decides correctly on logins by certificate", _certificates),
    ("it can reload its data", _reloads),
    ("it knows addresses, and none that nobody has", _addresses),
    ("it finds app passwords at once, and none that nobody has", _app_passwords),
)
