"""Old names of renamed keys, accepted for one release.

`setting(..., formerly="old")` in the model declares one. The loader replaces old names before it structures the
document, so `show`, the generated documents and all other code know only the new names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailserver.config.model import Config, Problem
from mailserver.config.schema import KeyPath, keys_of, place_of, table_at


def replace_old_names(document: dict[str, Any], file: str) -> list[Problem]:
    """Rename the keys in `document`. Return a warning for each, or an error if the new name is set, too.

    If both names are set, the value of the new name stays.
    """
    problems = []
    for where, table_class, table in _tables(document, (), Config):
        for name, attribute in keys_of(table_class).items():
            old = attribute.metadata.get("formerly", "")
            if not old or old not in table:
                continue
            value, place = table.pop(old), place_of((*where, old))
            if name in table:
                reason = f"is the old name of {name}, which is set, too: remove one of the two"
                problems.append(Problem(file, place, "", reason))
            else:
                table[name] = value
                reason = f"is now called {name}; the old name works until the next release"
                problems.append(Problem(file, place, "", reason, warning=True))
    return problems


def _tables(table: dict[str, Any], where: KeyPath, table_class: type) -> Iterator[tuple[KeyPath, type, dict[str, Any]]]:
    """The table and all tables in it that the model has, each with its path and its class."""
    yield where, table_class, table
    for name in keys_of(table_class):
        inner_class = table_at((*where, name))
        if inner_class is None:
            continue
        found = table.get(name)
        if isinstance(found, dict):
            yield from _tables(found, (*where, name), inner_class)
        elif isinstance(found, list):
            for index, element in enumerate(found):
                if isinstance(element, dict):
                    yield from _tables(element, (*where, name, index), inner_class)
