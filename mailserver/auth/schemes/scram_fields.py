"""SCRAM keys beside the password in a line of a users file: extra fields that Dovecot ignores (no I/O).

    scram_sha256=MARK,rounds,salt,StoredKey,ServerKey      scram_sha1=...

Another program may change the password field and does not know these fields. So the mark is a digest of the password
field that they were made with, and keys with another mark are ignored. A line whose password field is itself
{SCRAM-SHA-256} or {SCRAM-SHA-1} has its keys there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from mailserver.auth.interfaces import TypicalScram
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import BadLine, BadName, PasswdEntry, parse_line
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import HASHES, ROUNDS, BadKeys, ScramKeys, derive_under, make_keys, prepare

_SAMPLE: Final = 500
"""Lines with keys that are parsed to find the typical parameters."""
_FIELDS: Final = {name: f"scram_{name.lower().replace('-', '')}" for name in HASHES}
FIELDS: Final = frozenset(_FIELDS.values())
"""Names of the extra fields."""
_NO_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType({})


class StaleKeys(BadKeys):
    """Another program changed the password without the keys."""

    def __init__(self) -> None:
        super().__init__("its SCRAM keys belong to another password; `mailserver user password` makes new ones")


def make_fields(
    stored: str,
    password: bytes,
    hashes: Iterable[str],
    rounds: int = ROUNDS,
    shared: Mapping[str, str] = _NO_PARAMETERS,
) -> dict[str, str]:
    """The extra fields for a password field (without `!`), by name.

    Without the hash whose keys are in the password field itself. `shared`: "rounds,salt" of other passwords of the user,
    by hash. Raises: saslprep.Unpreparable.
    """
    fields = {}
    for name in hashes:
        if not stored.upper().startswith(_scheme(name)):
            given = name in shared
            keys = derive_under(name, prepare(password), shared[name]) if given else make_keys(name, password, rounds)
            fields[_FIELDS[name]] = f"{_mark(stored)},{keys.text()}"
    return fields


def under_parameters(hash_name: str, password: bytes, parameters: str) -> str:
    """A password field of SCRAM keys under that "rounds,salt". A password that SASLprep refuses is taken as it is."""
    with contextlib.suppress(Unpreparable):
        password = prepare(password)
    return f"{_scheme(hash_name)}{derive_under(hash_name, password, parameters).text()}"


def field_of(stored: str, hash_name: str, keys: ScramKeys) -> tuple[str, str] | None:
    """Name and value of the extra field for keys that were made before; None if the password field has them itself."""
    if stored.upper().startswith(_scheme(hash_name)):
        return None
    return _FIELDS[hash_name], f"{_mark(stored)},{keys.text()}"


def keys_of(entry: PasswdEntry, hash_name: str) -> ScramKeys | None:
    """The keys of a user, disabled or not; None if the line has none. Raises: StaleKeys, BadKeys."""
    scheme = _scheme(hash_name)
    if entry.stored.upper().startswith(scheme):
        return ScramKeys.parse(entry.stored[len(scheme) :], hash_name)
    field = entry.extra.get(_FIELDS[hash_name])
    if field is None:
        return None
    mark, _, text = field.partition(",")
    keys = ScramKeys.parse(text, hash_name)
    if mark != _mark(entry.stored):
        raise StaleKeys
    return keys


def faults(entry: PasswdEntry) -> set[str]:
    """The faults of a line's SCRAM fields."""
    found = set()
    for name, field in _FIELDS.items():
        try:
            if field in entry.extra:
                keys_of(entry, name)
        except BadKeys as error:
            found.add(str(error))
    return found


def survey(lines: Collection[str]) -> dict[str, TypicalScram]:
    """Typical keys of these lines, by hash; no entry for a hash without any keys.

    Lines are not parsed whole, as there may be 100,000; the keys of the first `_SAMPLE` are checked.
    """
    found = {}
    for name, field in _FIELDS.items():
        mark, scheme = f"{field}=", _scheme(name)
        holders = [line for line in lines if mark in line or scheme in line]
        everybody = len(holders) == len(lines) or all(
            mark in line or scheme in line or _is_disabled(line) or not _takes_password(line) for line in lines
        )
        typical = _typical(name, holders[:_SAMPLE], everybody)
        if typical is not None:
            found[name] = typical
    return found


def _is_disabled(line: str) -> bool:
    return line.partition(":")[2].startswith("!") or "nologin" in line


def _takes_password(line: str) -> bool:
    """Can a password log in by that line? An unusable line must not prevent SCRAM for the others."""
    try:
        entry = parse_line(line)
        if entry.stored:
            schemes.parse(entry.stored)
    except (BadLine, BadName, schemes.BadHash):
        return False
    return True


def _typical(hash_name: str, lines: Iterable[str], everybody: bool) -> TypicalScram | None:
    kinds: Counter[tuple[int, int]] = Counter()
    for line in lines:
        try:
            entry = parse_line(line)
            keys = keys_of(entry, hash_name)
        except (BadLine, BadName):
            continue  # nobody can log in by it, even with a password
        except BadKeys:
            keys = None
        if keys is not None:
            kinds[keys.rounds, len(keys.salt)] += 1
        elif not entry.disabled and _takes_password(line):
            everybody = False
    if not kinds:
        return None
    rounds, salt_size = kinds.most_common(1)[0][0]
    return TypicalScram(rounds, salt_size, everybody)


def replace_fields(extra: str, fields: Mapping[str, str]) -> str:
    """The extra fields of a line, its SCRAM fields replaced by these."""
    kept = [word for word in extra.split() if word.partition("=")[0] not in FIELDS]
    return " ".join([*kept, *(f"{name}={value}" for name, value in fields.items())])


def _scheme(hash_name: str) -> str:
    return f"{{SCRAM-{hash_name}}}"


def _mark(stored: str) -> str:
    digest = hashlib.sha256(stored.encode("utf-8", "surrogateescape")).digest()
    return base64.b64encode(digest[:15]).decode("ascii")
