"""Loading of a TOML file into a Config, with all problems at once.

cattrs structures the file and collects faults of single values; each becomes a Problem. Then the loader removes the faulty
keys, structures the rest again, and runs the cross-checks of `check` on it: ten mistakes of both kinds are reported
together. `read` keeps the valid rest, so that checks elsewhere (certificates, users files) can add their problems; `load`
returns a Config only if there is no error.
"""

from __future__ import annotations

import copy
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from attrs import frozen
from cattrs import AttributeValidationNote, BaseValidationError, ForbiddenExtraKeysError

from mailserver.config import check, converter, dovecot, not_toml, renamed_keys, values
from mailserver.config.converter import InvalidElements
from mailserver.config.model import BackendUse, Config, Domain, Listener, Problem
from mailserver.config.schema import TOML_NAMES, KeyPath, all_tables, hints_of, keys_of, place_of, table_at, value_at
from mailserver.config.values import InvalidValue

MAX_FILE: Final = 1 << 20
"""Largest configuration file, octets."""

_DOMAIN_CANNOT: Final = {
    "maximum_version": "the version is negotiated before the certificate is selected by name",
    "unknown_name": "it is about names that belong to no domain",
    "default": "it is about clients that send no name",
    "preset": "it applies before the name is known",
    "groups": "key exchange begins before the certificate is selected by name",
    "ciphersuites": "the suites of TLS 1.3 cannot depend on the name",
    "cipher_order": "it cannot depend on the name",
    "tickets": "tickets are encrypted and decrypted before the name is known",
}
"""Keys that cannot differ between server names, and the reason."""

_PLACEHOLDERS: Final[dict[str, dict[str, Any]]] = {
    "server": {"hostname": "invalid"},
    "mail": {"root": "/"},
    "auth": {"backends": []},
    "acme": {"terms_of_service": "agreed"},
    "domain": {"name": "invalid", "hosts": []},
}
"""Values of required keys that are faulty, for cross-checks of the rest; never served."""

_DOVECOT_FILE: Final = (
    "is a Dovecot configuration, and this server has its own format: etc/mailserver.toml is an example, and "
    "docs/from-dovecot.md and docs/tls-from-dovecot.md list the equivalents of Dovecot's settings"
)

_ARRAYS: Final = ("domain", "listener")


@frozen
class ReadConfig:
    """The valid part of a file, and its problems."""

    config: Config | None
    """The valid part: faulty keys have their defaults, incomplete tables are omitted. None: the file is not TOML."""
    problems: tuple[Problem, ...]
    broken: frozenset[str] = frozenset()
    """Places whose values in `config` are not those of the file."""

    def with_problems(self, more: Iterable[Problem]) -> list[Problem]:
        """All problems, with those of other checks of `config`, except at places that are reported already."""
        problems = list(self.problems)
        for problem in more:
            if not self._is_broken(problem.place) and problem not in problems:
                problems.append(problem)
        return problems

    def _is_broken(self, place: str) -> bool:
        table = place[: place.find("]") + 1]
        return place in self.broken or table in self.broken


def load(path: Path) -> tuple[Config | None, list[Problem]]:
    """Load a file. Return the configuration, or None if there is an error; and all problems. Raises nothing."""
    reading = read(path)
    sound = all(problem.warning for problem in reading.problems)
    return (reading.config if sound else None), list(reading.problems)


def read(path: Path, *, embedded: bool = False) -> ReadConfig:
    """Read a file: its valid part, and all problems. Raises nothing."""
    try:
        # O_NONBLOCK: a FIFO must not block the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return _unreadable(path, "must be a regular file")
        with open(descriptor, "rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as fault:
        return _unreadable(path, f"cannot be read: {fault.strerror}")
    if len(octets) > MAX_FILE:
        return _unreadable(path, f"must be at most {MAX_FILE} octets")
    return parse(octets, path, embedded=embedded)


def parse(octets: bytes, path: Path, *, embedded: bool = False) -> ReadConfig:
    """Parse the content of a file at `path`, which problems name and relative paths refer to. Raises nothing."""
    try:
        # TOML has no byte order mark, but some editors write one.
        text = octets.decode("utf-8-sig")
        document = tomllib.loads(text)
    except UnicodeDecodeError as fault:
        return _unreadable(path, f"must be UTF-8; octet {fault.start + 1} is not")
    except tomllib.TOMLDecodeError as fault:
        if not_toml.is_dovecots(text):
            return _unreadable(path, _DOVECOT_FILE)
        return _unreadable(path, not_toml.explain(text, fault, _kind_of))
    except RecursionError:
        return _unreadable(path, "is not a configuration: too deeply nested")
    if embedded:
        document = {name: [] for name in _ARRAYS} | document
    source = path.absolute()
    renamed = renamed_keys.replace_old_names(document, str(source))
    try:
        config = converter.structure(document, source.parent)
    except BaseValidationError as group:
        faults = list(_faults(group, ()))
    else:
        config = attrs.evolve(_numbered(config, {}, source), embedded=embedded)
        return ReadConfig(config, (*renamed, *check.check(config, partial=_elsewhere(config))))
    problems = [_problem(str(source), document, where, fault) for where, fault in faults]
    rest, kept = _without(document, faults)
    config = attrs.evolve(_numbered(converter.structure(rest, source.parent), kept, source), embedded=embedded)
    broken = {problem.place for problem in problems}
    broken |= {f"[{place}]" for place in broken if not place.startswith("[")}
    reading = ReadConfig(config, (*renamed, *problems), frozenset(broken))
    return attrs.evolve(
        reading,
        problems=tuple(reading.with_problems(check.check(config, partial=_elsewhere(config) | frozenset(kept)))),
    )


def _elsewhere(config: Config) -> frozenset[str]:
    """Return the arrays of tables that need not be in the file, and are not."""
    if not config.embedded:
        return frozenset()
    return frozenset({"listener"} if config.domains else {"listener", "domain"})


def _kind_of(table: str, key: str) -> type | None:
    """The type of a key; None if it does not exist or may hold a secret."""
    found = table_at(tuple(table.split(".")))
    attribute = keys_of(found).get(key) if found is not None else None
    if found is None or attribute is None or attribute.metadata.get("hidden"):
        return None
    return not_toml.base_kind(hints_of(found)[attribute.name])


def _unreadable(path: Path, reason: str) -> ReadConfig:
    return ReadConfig(None, (Problem(str(path.absolute()), "", "", reason),))


def _numbered(config: Config, kept: dict[str, list[int]], source: Path) -> Config:
    """Set each table's number in the file, omitted ones counted, and make paths of users files absolute."""

    def number(tables: tuple[Any, ...], indexes: list[int] | None) -> tuple[Any, ...]:
        places = range(len(tables)) if indexes is None else indexes
        return tuple(attrs.evolve(table, number=index + 1) for index, table in zip(places, tables, strict=True))

    domains = tuple(
        attrs.evolve(domain, sites=number(domain.sites, None)) for domain in number(config.domains, kept.get("domain"))
    )
    listeners = number(config.listeners, kept.get("listener"))
    auth = attrs.evolve(config.auth, backends=tuple(_absolute(each, source) for each in config.auth.backends))
    return attrs.evolve(config, domains=domains, listeners=listeners, auth=auth, source=source)


def _absolute(backend: BackendUse, source: Path) -> BackendUse:
    """Make the path of a users file or directory absolute. Arguments of other back ends stay unchanged."""
    name, _, path = backend.use.partition(":")
    # ~ is not expanded: the back end refuses it.
    if name not in {"directory", "file"} or not path or path.startswith("~"):
        return backend
    return backend._replace(use=f"{name}:{source.parent / path}")


def _without(
    document: dict[str, Any], faults: list[tuple[KeyPath, Exception]]
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return a copy without the faults, and the indexes of the remaining tables of each shortened array."""
    rest = copy.deepcopy(document)
    removed = object()
    shortened = set()
    for where, _fault in faults:
        cut = _cut(where)
        top, key = str(cut[0]), str(cut[-1])
        # Checks of all names, hosts, ports or client certificates need every table.
        if top in _ARRAYS and (len(cut) <= 2 or key in ("name", "hosts", "client_certificates") or "site" in cut):
            shortened.add(top)
        holder = value_at(rest, cut[:-1])
        placeholders = _PLACEHOLDERS.get(top, {})
        if len(cut) == 1 and top in _ARRAYS:
            rest[top] = []
        elif len(cut) == 1 and placeholders:
            rest[top] = dict(placeholders)
        elif isinstance(holder, dict) and table_at(cut[:-1]) is table_at((top,)) and key in placeholders:
            holder[key] = placeholders[key]
        elif isinstance(holder, list):
            holder[int(cut[-1])] = removed
        elif isinstance(holder, dict):
            holder.pop(cut[-1], None)
        # Else the table is removed already, for another fault.
    kept = {top: [index for index, table in enumerate(rest[top]) if table is not removed] for top in shortened}
    _sweep(rest, removed)
    return rest, kept


def _cut(where: KeyPath) -> KeyPath:
    """The path to remove for a fault: the key, or the table that requires it."""
    if isinstance(where[-1], int):
        return where
    parent = table_at(where[:-1])
    attribute = keys_of(parent).get(where[-1]) if parent is not None else None
    required = attribute is not None and attribute.default is attrs.NOTHING
    has_placeholder = where[0] in _PLACEHOLDERS and parent is table_at((where[0],))
    return where[:-1] if required and not has_placeholder and len(where) > 1 else where


def _sweep(value: Any, removed: object) -> None:
    if isinstance(value, list):
        value[:] = [element for element in value if element is not removed]
    for inner in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        _sweep(inner, removed)


def _faults(fault: BaseException, where: KeyPath) -> Iterator[tuple[KeyPath, Exception]]:
    """Each single fault in cattrs' tree, with its path in the names of the file."""
    if isinstance(fault, InvalidElements):
        for index, inner in zip(fault.indexes, fault.exceptions, strict=True):
            yield from _faults(inner, (*where, index))
    elif isinstance(fault, BaseValidationError):
        for inner in fault.exceptions:
            notes = [note for note in getattr(inner, "__notes__", ()) if isinstance(note, AttributeValidationNote)]
            # The innermost table adds its note first.
            step = (TOML_NAMES.get(notes[0].name, notes[0].name),) if notes else ()
            yield from _faults(inner, (*where, *step))
    elif isinstance(fault, ForbiddenExtraKeysError):
        for name in sorted(fault.extra_fields):
            yield (*where, name), fault
    elif isinstance(fault, InvalidValue | KeyError):
        yield where, fault
    else:
        raise fault


def _problem(file: str, document: dict[str, Any], where: KeyPath, fault: Exception) -> Problem:
    if isinstance(fault, ForbiddenExtraKeysError):
        return _unknown(file, document, where)
    if isinstance(fault, KeyError):
        return Problem(file, place_of(where), "", _missing(where))
    assert isinstance(fault, InvalidValue)
    value = value_at(document, where)
    # `imap = 3` is a key, though [imap] would be a table.
    place = place_of(where, as_table=isinstance(value, dict | list))
    return Problem(file, place, _shown(where, document), fault.reason, fault.near)


def _missing(where: KeyPath) -> str:
    table = table_at(where)
    name = str(where[-1])
    if table in (Domain, Listener):
        return f"at least one [[{name}]] is needed"
    if table is not None:
        needed = [key for key, attribute in keys_of(table).items() if attribute.default is attrs.NOTHING]
        return f"the table is missing; it needs {' and '.join(needed)}"
    parent = table_at(where[:-1])
    assert parent is not None
    return f"is missing; an example: {values.as_toml(keys_of(parent)[name].metadata['example'])}"


def _unknown(file: str, document: dict[str, Any], where: KeyPath) -> Problem:
    """The problem of an unknown key or table. Its value is not shown, as it may be a secret."""
    name = str(where[-1])
    table = table_at(where[:-1])
    assert table is not None
    value = value_at(document, where)
    place = place_of(where, as_table=isinstance(value, dict))
    if table is Domain and name in _DOMAIN_CANNOT:
        home = "[tls] or to a [[listener]]" if name in keys_of(Listener) else "[tls]"
        return Problem(file, place, "", f"a domain cannot have this; it belongs to {home}: {_DOMAIN_CANNOT[name]}")
    if ours := dovecot.instead(name):
        return Problem(file, place, "", f"is a setting of Dovecot; here: {ours}")
    near = values.nearest(name, keys_of(table))
    homes = [home for home, other in all_tables() if other not in (table, Config) and name in keys_of(other)]
    if homes and not isinstance(value, dict):
        # A key of another table is more likely meant than a similar word.
        return Problem(file, place, "", f"no such key here; it belongs to {' or '.join(homes)}")
    what = "no such table" if isinstance(value, dict) else "no such key"
    return Problem(file, place, "", what, near)


def _shown(where: KeyPath, document: dict[str, Any]) -> str:
    named = [step for step in where if not isinstance(step, int)]
    parent = table_at(tuple(named[:-1]))
    attribute = keys_of(parent).get(named[-1]) if parent is not None else None
    if attribute is not None and attribute.metadata.get("hidden"):
        return ""
    return values.as_toml(value_at(document, where))
