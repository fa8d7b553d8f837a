"""Tables and keys of the configuration file, as the model declares them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

import attrs

from mailserver.config.model import Config, Domain, HiddenCapabilities, Listener, Site
from mailserver.config.values import as_toml

TOML_NAMES: Final = {"domains": "domain", "listeners": "listener", "sites": "site"}
"""Attributes of Config and Domain whose tables have another name in the file."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")

KeyPath = tuple[str | int, ...]
"""Path of a value: names of tables and keys, and positions in arrays from 0."""

hints_of = functools.cache(get_type_hints)
"""Types of the keys of a table class; cached, as there are only as many as tables."""


def table_at(where: KeyPath) -> type | None:
    """The class of the table at a path, or None where the path leads to no table."""
    found: type | None = Config
    for step in where:
        if isinstance(step, int):
            continue
        found = _tables_in(found).get(step)
        if found is None:
            return None
    return found


@functools.cache
def _tables_in(table: type) -> dict[str, type]:
    """The classes of the tables in a table, by their names in the file; cached as `hints_of` is."""
    found: dict[str, type] = {}
    for name, hint in hints_of(table).items():
        parts = [part for part in (hint, *get_args(hint)) if attrs.has(part)]
        if parts:
            found[TOML_NAMES.get(name, name)] = parts[0]
    return found


def keys_of(table: type) -> dict[str, Any]:
    """The keys of a table by their names in the file, each with its attrs attribute."""
    return {
        TOML_NAMES.get(attribute.name, attribute.name): attribute
        for attribute in attrs.fields(table)
        if not attribute.metadata.get("no_key") and not (table is Config and attribute.name == "source")
    }


def all_tables() -> Iterator[tuple[str, type]]:
    """Every table with its header, such as [[domain.site]]."""
    for top in keys_of(Config):
        table = table_at((top,))
        assert table is not None
        yield (f"[[{top}]]" if table in (Domain, Listener) else f"[{top}]"), table
        for inner in keys_of(table):
            nested = table_at((top, inner))
            if nested is not None:
                yield (f"[[{top}.{inner}]]" if nested in (Site, HiddenCapabilities) else f"[{top}.{inner}]"), nested


def value_at(document: Any, where: KeyPath) -> Any:
    """The value at a path of a document, or None where there is none."""
    found = document
    for step in where:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def place_of(where: KeyPath, *, as_table: bool | None = None) -> str:
    """The place of a Problem: table and key, such as [listener 2] port. An array's elements have the place of their key.

    `as_table`: show the last step as a table; by default if the model has one there.
    """
    tables: list[str] = []
    steps = list(where)
    while steps:
        prefix = where[: len(where) - len(steps) + 1]
        known = table_at(prefix) is not None
        if not (known if len(steps) > 1 or as_table is None else as_table):
            break
        tables.append(_key(str(steps.pop(0))))
        if steps and isinstance(steps[0], int):
            tables[-1] += f" {int(steps.pop(0)) + 1}"
    table = f"[{'.'.join(tables)}]" if tables else ""
    key = _key(str(steps[0])) if steps else ""
    return f"{table} {key}".strip()


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else as_toml(name)
