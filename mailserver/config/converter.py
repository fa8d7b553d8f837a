"""The cattrs converter from a TOML document to `model.Config`.

Tables, arrays and choices are structured here; `values` has the hooks of single values.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from mailserver.config import backend_values, kinds, model, values
from mailserver.config.schema import TOML_NAMES
from mailserver.config.values import InvalidValue

_MEANT: Final = {
    "smtp": "submission",
    "esmtp": "submission",
    "smtps": "submissions",
    "1.0": "1.2",
    "1.1": "1.2",
}
"""Suggestions for words that are not similar to a choice: other names of protocols, and old TLS versions."""


_directory: ContextVar[Path] = ContextVar("_directory")
"""The directory that relative paths refer to, while a document is structured."""


def structure(document: dict[str, Any], directory: Path) -> model.Config:
    """Structure a document. Relative paths refer to `directory`. Raises: cattrs.BaseValidationError."""
    token = _directory.set(directory)
    try:
        return _converter().structure(document, model.Config)
    finally:
        _directory.reset(token)


@functools.cache
def _converter() -> Converter:
    """Make the converter for `model.Config`: once, as its code is generated."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)

    def path(value: Any, _type: Any) -> Path:
        words = values.text(value)
        if not words:
            raise InvalidValue("must be a path; omit the key for none")
        if words.startswith("~"):
            raise InvalidValue(
                "must be a path that begins with / (or is taken from this file's directory); ~ is not expanded"
            )
        return _directory.get() / words

    hooks: list[tuple[Any, Callable[[Any, Any], Any]]] = [
        (str, values.text),
        (bool, values.boolean),
        (int, values.integer),
        (Path, path),
        (kinds.Port, values.port),
        (kinds.Count, values.at_least_one),
        (kinds.Size, values.at_least_one),
        (kinds.Limit, values.limit),
        (kinds.SizeLimit, values.size_limit),
        (kinds.Seconds, values.seconds),
        (kinds.GreetingDelay, values.greeting_delay),
        (kinds.HostName, values.host_name),
        (kinds.HostPattern, values.host_pattern),
        (kinds.OptionalHostName, values.optional_host_name),
        (kinds.NextHop, values.next_hop),
        (kinds.HttpUrl, values.http_url),
        (kinds.Address, values.address),
        (kinds.Network, values.network),
        (kinds.Workers, values.workers),
        (kinds.FileMode, values.file_mode),
        (model.BackendUse, backend_values.backend_use),
    ]
    for wanted, hook in hooks:
        converter.register_structure_hook(wanted, hook)
    converter.register_structure_hook_factory(_has_origin(Literal), _choice)
    converter.register_structure_hook_factory(_is_optional, lambda t: _optional(t, converter))
    converter.register_structure_hook_factory(_has_origin(tuple), lambda t: _array(t, converter))
    converter.register_structure_hook_factory(_has_origin(dict), lambda _t: _names_table)
    converter.register_structure_hook_factory(_is_table, lambda t: _table(t, converter))
    return converter


def _has_origin(origin: Any) -> Callable[[Any], bool]:
    return lambda wanted: get_origin(wanted) is origin


def _is_optional(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, types.UnionType) and type(None) in get_args(wanted)


def _is_table(wanted: Any) -> bool:
    return hasattr(wanted, "__attrs_attrs__")


def _optional(wanted: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """TOML has no null: a value always has the inner type."""
    (inner,) = (part for part in get_args(wanted) if part is not type(None))
    return lambda value, _type: converter.structure(value, inner)


def _choice(wanted: Any) -> Callable[[Any, Any], Any]:
    words = get_args(wanted)

    def structure(value: Any, _type: Any) -> str:
        if not isinstance(value, str) or value not in words:
            listed = " or ".join(filter(None, (", ".join(map(repr, words[:-1])), repr(words[-1]))))
            meant = _MEANT.get(str(value).casefold(), "")
            raise InvalidValue(f"must be {listed}", meant if meant in words else values.nearest(str(value), words))
        return value

    return structure


class InvalidElements(ExceptionGroup[Exception]):
    """Faults of an array's elements; `indexes` has the position of each of `exceptions`, from 0."""

    indexes: list[int]


def _array(wanted: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    inner = get_args(wanted)[0]
    tables = _is_table(inner)

    def structure(value: Any, _type: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            if tables and isinstance(value, dict):
                raise InvalidValue("must be an array of tables: write its name in double brackets, [[...]]")
            raise InvalidValue(f"must be an array in square brackets, not {values.kind(value)}")
        result, faults, indexes = [], [], []
        for index, element in enumerate(value):
            try:
                result.append(converter.structure(element, inner))
            except Exception as fault:
                faults.append(fault)
                indexes.append(index)
        if faults:
            group = InvalidElements("array", faults)
            group.indexes = indexes
            raise group
        return tuple(result)

    return structure


def _names_table(value: Any, _type: Any) -> dict[str, tuple[str, ...]]:
    """A table of names, each one or an array of them."""
    if not isinstance(value, dict):
        raise InvalidValue(f"must be a table, not {values.kind(value)}")
    found = {}
    for key, words in value.items():
        names = words if isinstance(words, list) else [words]
        try:
            found[values.text(key)] = tuple(map(values.text, names))
        except InvalidValue as fault:
            raise InvalidValue(f"{key!r}: {fault.reason}") from None
    return found


def _table(wanted: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    names = {attribute.name for attribute in wanted.__attrs_attrs__}
    overrides = {name: override(rename=toml) for name, toml in TOML_NAMES.items() if name in names}
    for attribute in wanted.__attrs_attrs__:
        if attribute.metadata.get("no_key") or (wanted is model.Config and attribute.name == "source"):
            overrides[attribute.name] = override(omit=True)
    structure_table = make_dict_structure_fn(
        wanted,
        converter,
        _cattrs_detailed_validation=True,
        _cattrs_forbid_extra_keys=True,
        **overrides,  # type: ignore[arg-type]
    )

    def structure(value: Any, of: Any) -> Any:
        if isinstance(value, list):
            raise InvalidValue("must be one table: write its name in single brackets, [...]")
        if not isinstance(value, dict):
            raise InvalidValue(f"must be a table, not {values.kind(value)}")
        return structure_table(value, of)

    return structure
