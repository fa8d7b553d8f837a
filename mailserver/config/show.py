"""The effective configuration as TOML: the settings of the file and all defaults, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import tomlkit
from tomlkit.items import AoT, InlineTable, Table

from mailserver.config.kinds import Address, Port
from mailserver.config.model import BackendUse, Config, Listener
from mailserver.config.schema import keys_of

_PUBLIC_BACKENDS = ("directory", "file")
"""Back ends whose argument is a path. Arguments of others may contain a password and are not shown."""


def show(config: Config) -> str:
    """TOML that `load` accepts, except hidden arguments of back ends. Keys without a value are omitted."""
    document = tomlkit.document()
    document.add(tomlkit.comment(f"effective configuration of {config.source}"))
    for name, attribute in keys_of(Config).items():
        value = getattr(config, attribute.name)
        if value is None:
            continue
        if isinstance(value, tuple):
            tables = AoT([])
            for element in value:
                tables.append(_table(element))
            document.append(name, tables)
        else:
            document.append(name, _table(value))
    return tomlkit.dumps(document)


def _table(values: Any) -> Table:
    table = tomlkit.table()
    shown: Any = values
    if isinstance(values, Listener) and values.socket is None:
        shown = attrs.evolve(values, port=Port(values.tcp_port), addresses=tuple(map(Address, values.bind_addresses)))
    nested = []
    for name, attribute in keys_of(type(values)).items():
        value = getattr(shown, attribute.name)
        if name == "site":
            nested += [(name, AoT([_table(element) for element in value]))] if value else []
        elif attrs.has(type(value)) or isinstance(value, dict):
            nested.append((name, value))
        elif value is not None:
            table.append(name, _plain(name, value))
    # Keys after a nested table would belong to it.
    for name, value in nested:
        table.append(
            name, value if isinstance(value, AoT) else _lists(value) if isinstance(value, dict) else _table(value)
        )
    return table


def _lists(value: dict[str, tuple[str, ...]]) -> dict[str, str | list[str]]:
    return {key: names[0] if len(names) == 1 else list(names) for key, names in value.items()}


def _plain(name: str, value: Any) -> Any:
    if name == "backends":
        return [_backend(backend) for backend in value]
    if name in ("key_password_command", "hook"):
        # Some programs take a secret as an argument.
        return [*value[:1], *("(hidden)" for _argument in value[1:])]
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _backend(backend: BackendUse) -> str | InlineTable:
    name, colon, _argument = backend.use.partition(":")
    words = backend.use if name in _PUBLIC_BACKENDS or not colon else f"{name}:(hidden)"
    if backend == BackendUse(backend.use):
        return words
    table = tomlkit.inline_table()
    table.update({"use": words} | ({"domains": list(backend.domains)} if backend.domains else {}))
    if name not in _PUBLIC_BACKENDS:
        table.update({"time": backend.time, "calls": backend.calls, "cache": backend.cache})
    return table
