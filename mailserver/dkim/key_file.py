"""The keys of each domain in the server's state directory, a file for each: `STATE_DIR/dkim/DOMAIN.json`, mode 0600.

A *key set* is an RSA and an Ed25519 key that were made together. A set *waits* until its records are published, then
*signs*, and is *retired* when the next one signs. The private keys of a retired set are dropped; its public keys stay
for a while, as mail that they have signed is still on its way.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs
from attrs import frozen

from mailserver.dkim.keys import Algorithm, BadKey, SigningKey, load_private, make_key, public_record
from mailserver.system.atomic_file import replace_file

DIRECTORY: Final = "dkim"
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("rsa", "ed25519")
"""The keys of a set, in the order of signatures."""
PUBLISHED_FOR: Final = (5 + 2) * 24 * 3600
"""Seconds for which a retired key stays published: five days that mail may wait in a queue, and two more."""
MOST_OCTETS: Final = 256 * 1024
MOST_SETS: Final = 16
"""Key sets of a domain."""

State: TypeAlias = Literal["waiting", "signing", "retired", "removable"]

_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class BadKeyFile(Exception):
    """The keys of a domain cannot be read or written; the argument is a sentence that names the file."""


class CannotChange(Exception):
    """The keys of a domain cannot be changed so; the argument says why."""


@frozen
class DomainKey:
    """One key of a set."""

    selector: str
    algorithm: Algorithm
    record: str
    """The text of its DNS record."""
    pem: bytes = attrs.field(repr=False)
    """The private key; empty for a retired one."""


@frozen
class KeySet:
    """Keys that were made together."""

    name: str
    created: int
    """Unix time, as are the others."""
    keys: tuple[DomainKey, ...]
    signs_since: int | None = None
    retired: int | None = None

    def state(self, now: float) -> State:
        """Waiting, signing or retired; removable when its records need not be published any more."""
        if self.retired is not None:
            return "removable" if now >= self.retired + PUBLISHED_FOR else "retired"
        return "waiting" if self.signs_since is None else "signing"


@frozen
class DomainKeys:
    """All keys of a domain, the oldest first."""

    domain: str
    sets: tuple[KeySet, ...]

    @property
    def signing(self) -> KeySet | None:
        """The set that signs."""
        return next((each for each in self.sets if each.signs_since is not None and each.retired is None), None)

    @property
    def waiting(self) -> KeySet | None:
        """The set that will sign once its records are published."""
        return next((each for each in self.sets if each.signs_since is None and each.retired is None), None)

    def with_set(self, name: str, now: float) -> DomainKeys:
        """Add a new set, which waits; removable sets are dropped. Raises: CannotChange."""
        if not _SELECTOR.fullmatch(name):
            raise CannotChange(f"{name!r} is no selector: it has up to 40 lower-case letters, digits and hyphens")
        if self.waiting is not None:
            raise CannotChange(f"the keys {self.waiting.name} wait already for their DNS records")
        kept = tuple(each for each in self.sets if each.state(now) != "removable")
        if any(each.name == name for each in kept):
            raise CannotChange(f"there are keys of the selector {name} already")
        if len(kept) >= MOST_SETS:
            raise CannotChange(
                f"there are {MOST_SETS} key sets; the oldest can be removed some days after its last use"
            )
        made = [make_key(f"{name}-{algorithm}", algorithm) for algorithm in ALGORITHMS]
        keys = tuple(DomainKey(key.selector, key.algorithm, public_record(key), key.pem) for key in made)
        return attrs.evolve(self, sets=(*kept, KeySet(name, int(now), keys)))

    def with_waiting_signing(self, now: float) -> DomainKeys:
        """Let the waiting set sign from now on, and retire the one before it. Raises: CannotChange."""
        waiting = self.waiting
        if waiting is None:
            raise CannotChange("no keys wait for their DNS records")
        return attrs.evolve(self, sets=tuple(_advanced(each, each is waiting, int(now)) for each in self.sets))

    def new_name(self, day: str) -> str:
        """A name for the next set: the day, with a number if it has been used."""
        used = {each.name for each in self.sets}
        return next(name for name in (day, *(f"{day}-{number}" for number in range(2, 99))) if name not in used)


def _advanced(keys: KeySet, signs: bool, now: int) -> KeySet:
    if signs:
        return attrs.evolve(keys, signs_since=now)
    if keys.retired is not None:
        return keys
    return attrs.evolve(keys, retired=now, keys=tuple(attrs.evolve(key, pem=b"") for key in keys.keys))


@frozen
class SigningDomain:
    """The keys that sign for a domain, as plain values for another process."""

    domain: str
    keys: tuple[SigningKey, ...]


@frozen
class Reading:
    """The keys of some domains as far as they can be used, and why others cannot."""

    domains: tuple[SigningDomain, ...]
    problems: tuple[tuple[str, str], ...]
    """Domain, and a sentence."""
    waiting: tuple[str, ...]
    """Domains with keys that wait for their DNS records."""


def path_of(state_dir: Path, domain: str) -> Path:
    """The file of a domain."""
    return state_dir / DIRECTORY / f"{domain.lower()}.json"


def read(state_dir: Path, domain: str) -> DomainKeys | None:
    """Read the keys of a domain; None if there are none. Raises: BadKeyFile."""
    path = path_of(state_dir, domain)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            octets = file.read(MOST_OCTETS + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadKeyFile(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(octets) > MOST_OCTETS:
            raise ValueError("it is too large")  # noqa: TRY301 - one sentence for all
        keys = _parse(json.loads(octets))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadKey) as error:
        raise BadKeyFile(f"{path} is damaged: {error}") from error
    if keys.domain != domain.lower():
        raise BadKeyFile(f"{path} has the keys of another domain, {keys.domain}")
    return keys


def exposed(state_dir: Path, domain: str) -> str:
    """Why others may know the private keys, in a sentence; "" if there is no sign of it."""
    path = path_of(state_dir, domain)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if not stat.S_IMODE(mode) & 0o077:
        return ""
    return f"{path} can be read by other users: chmod 600, then `mailserver dkim rotate {domain}`, as they may know the keys"


def read_signing(state_dir: Path, domains: Iterable[str]) -> Reading:
    """Read the keys that sign for some domains. Raises nothing."""
    usable, problems, waiting = [], [], []
    for domain in domains:
        try:
            keys = read(state_dir, domain)
            if keys is None:
                continue
            if keys.waiting is not None:
                waiting.append(domain)
            signing = keys.signing
            if signing is not None:
                made = tuple(SigningKey(key.selector, key.algorithm, key.pem) for key in signing.keys)
                for key in made:
                    _load(key, path_of(state_dir, domain))
                usable.append(SigningDomain(domain, made))
        except BadKeyFile as error:
            problems.append((domain, str(error)))
    return Reading(tuple(usable), tuple(problems), tuple(waiting))


def _load(key: SigningKey, path: Path) -> None:
    try:
        load_private(key, validated=True)
    except BadKey as error:
        raise BadKeyFile(f"{path} is damaged: the key {key.selector} {error}") from error


def write(state_dir: Path, keys: DomainKeys) -> None:
    """Write the keys of a domain, in one step; the file belongs to the owner of `state_dir`. Raises: BadKeyFile."""
    path = path_of(state_dir, keys.domain)
    document = attrs.asdict(keys, value_serializer=_plain)
    try:
        owner = os.stat(state_dir)
        replace_file(
            path,
            json.dumps(document, indent=1).encode(),
            owner=(owner.st_uid, owner.st_gid),
            follow=False,
        )
    except OSError as error:
        raise BadKeyFile(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def changing(state_dir: Path) -> Iterator[None]:
    """Make the directory, and lock it against other changes. Raises: BadKeyFile."""
    directory = state_dir / DIRECTORY
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        if not directory.is_dir():
            directory.mkdir(mode=0o700)
            if os.geteuid() == 0:
                owner = os.stat(state_dir)
                os.chown(directory, owner.st_uid, owner.st_gid)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise BadKeyFile(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _plain(_owner: Any, _field: Any, value: Any) -> Any:
    return value.decode("ascii") if isinstance(value, bytes) else value


def _parse(document: Any) -> DomainKeys:
    """Raises: ValueError, KeyError, TypeError, AttributeError."""
    sets = tuple(
        KeySet(
            _text(each["name"]),
            _time(each["created"]),
            tuple(_key(key) for key in each["keys"]),
            None if each["signs_since"] is None else _time(each["signs_since"]),
            None if each["retired"] is None else _time(each["retired"]),
        )
        for each in document["sets"]
    )
    if len(sets) > 2 * MOST_SETS:
        raise ValueError("it has too many key sets")
    return DomainKeys(_text(document["domain"]), sets)


def _key(row: Any) -> DomainKey:
    algorithm = row["algorithm"]
    if algorithm not in ALGORITHMS:
        raise ValueError("it has a key of an unknown type")
    return DomainKey(_text(row["selector"]), algorithm, _text(row["record"]), _text(row["pem"]).encode("ascii"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _time(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("a time is missing")
    return value
