"""What one value may look like: a strict hook per type of the model, for cattrs.

cattrs by itself turns "5" into 5, 1 into True and 3.9 into 3; here a value of another kind is refused. Each hook
raises `Wrong`, whose sentence says what would be right. Hooks know nothing of other keys: that is `check`.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import json
import math
import re
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from mailserver.config import kinds, model
from mailserver.idn import ascii_name

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HTTP_URL = re.compile(r"http://[A-Za-z0-9.:\[\]-]{1,259}(?:/[!-~]{0,700})?")

_LONGEST_VALUE: Final = 60

MOST_WORKERS: Final = 256
LONGEST_HOLD: Final = 5.0

TOML_NAMES = {"domains": "domain", "listeners": "listener", "sites": "site"}
"""Attributes of Config and Domain whose tables have another name in the file."""


_MEANT: Final = {
    "smtp": "submission",
    "esmtp": "submission",
    "smtps": "submissions",
    "1.0": "1.2",
    "1.1": "1.2",
}
"""Other names of what a choice offers, that are not spelt alike; and for a TLS version too old the oldest there is."""


class Wrong(ValueError):
    """A value that cannot be; the argument says what would be right."""

    def __init__(self, reason: str, near: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.near = near


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or "". Letter case does not count."""
    by_fold = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else ""


def kind(value: object) -> str:
    """TOML's word for what a value is."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "text", int: "a whole number", float: "a decimal number", list: "an array", dict: "a table"}
    return names.get(type(value), "a date or time")


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def as_toml(value: Any) -> str:
    """A value as TOML has it, on one line, cut when long; "" for tables and None."""
    if value is None or isinstance(value, dict) or (isinstance(value, list) and any(map(_is_dict, value))):
        return ""
    if isinstance(value, Path):
        # Whole, however long: its end is what tells files apart.
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, bool):
        words = str(value).lower()
    elif isinstance(value, str):
        words = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list | tuple):
        words = f"[{', '.join(filter(None, map(as_toml, value)))}]"
    else:
        words = str(value)
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 3] + "..."


def text(value: Any, _type: Any = None) -> str:
    """Text without control characters."""
    if not isinstance(value, str):
        raise Wrong(f"must be text in quotes, not {kind(value)}")
    if _CONTROL.search(value):
        raise Wrong("must not contain control characters or line breaks")
    return value


def boolean(value: Any, _type: Any = None) -> bool:
    """True or false, nothing that stands for them."""
    if not isinstance(value, bool):
        near = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
        raise Wrong(f"must be true or false, not {kind(value)}", near.get(str(value).lower(), ""))
    return value


def integer(value: Any, _type: Any = None) -> int:
    """A whole number, not quoted and not a boolean."""
    if isinstance(value, bool) or not isinstance(value, int):
        quoted = ": write it without quotes" if isinstance(value, str) and value.isdigit() else ""
        raise Wrong(f"must be a whole number, not {kind(value)}{quoted}")
    return value


def at_least_one(value: Any, _type: Any = None) -> int:
    """A count or a size."""
    number = integer(value)
    if number < 1:
        raise Wrong("must be at least 1")
    if number > 2**62:
        raise Wrong("must be smaller")
    return number


def workers(value: Any, _type: Any = None) -> int | str:
    """A number of processes, or "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise Wrong('must be a whole number, or "auto"', "auto" if nearest(value, ("auto",)) else "")
        return value
    number = integer(value)
    if not 0 <= number <= MOST_WORKERS:
        raise Wrong(f"must be from 0 to {MOST_WORKERS}")
    return number


def port(value: Any, _type: Any = None) -> int:
    """A TCP port."""
    number = integer(value)
    if not 1 <= number <= 65535:
        raise Wrong("must be a port from 1 to 65535")
    return number


def file_mode(value: Any, _type: Any = None) -> str:
    """Rights in octal digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        near = f"{value:o}" if 0o100 <= value <= 0o777 else ""
        raise Wrong('must be text, as a number could be meant in another base: "0660"', near and as_toml("0" + near))
    words = text(value)
    if not re.fullmatch(r"0?[0-7]{3}", words):
        raise Wrong('must be three octal digits as chmod takes them, with a 0 before them or without: "0660"')
    return words


def seconds(value: Any, _type: Any = None) -> float:
    """A time above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"must be a number of seconds, not {kind(value)}")
    # A reactor cannot wait for ever or for a time that is no number; a hundred years are enough.
    if not math.isfinite(value) or not 0 < value <= 3.2e9:
        raise Wrong("must be a number of seconds above 0")
    return float(value)


def hold(value: Any, _type: Any = None) -> float:
    """A short time, or none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"must be a number of seconds, not {kind(value)}")
    if not 0 <= value <= LONGEST_HOLD:
        raise Wrong(
            f"must be from 0 to {LONGEST_HOLD:g} seconds: every client waits so long", "0.1" if value > 10 else ""
        )
    return float(value)


def host_name(value: Any, _type: Any = None) -> str:
    """RFC 1123 2.1: labels of letters, digits and inner hyphens, 253 octets in all."""
    name = text(value)
    if not name.isascii():
        raise Wrong("must be written in ASCII (xn--...)", ascii_name(name) or "")
    bare = name.removesuffix(".")
    if bare.startswith("*."):
        raise Wrong("a wildcard cannot stand here")
    if _is_address(bare):
        raise Wrong("must be a host name, not an IP address")
    if len(bare) > 253 or not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise Wrong("must be a host name: letters, digits and hyphens in labels of at most 63, joined by dots")
    if bare != name:
        raise Wrong("must not end in a dot", bare)
    return name.lower()


def host_pattern(value: Any, _type: Any = None) -> str:
    """A host name, or *.name."""
    name = text(value)
    if "*" in name.removeprefix("*."):
        raise Wrong("a wildcard is `*.` and a name; it stands for one whole label")
    if not name.startswith("*."):
        return host_name(name)
    parent = host_name(name[2:])
    if "." not in parent:
        raise Wrong("a wildcard needs a name of two labels behind it, such as *.example.org")
    return f"*.{parent}"


def optional_host_name(value: Any, _type: Any = None) -> str:
    """A host name, or empty."""
    return host_name(value) if value != "" else ""


def next_hop(value: Any, _type: Any = None) -> str:
    """A host name, or an IP address."""
    return value if isinstance(value, str) and _is_address(value) else host_name(value)


def http_url(value: Any, _type: Any = None) -> str:
    """An http URL, or empty."""
    words = text(value)
    if words and not _HTTP_URL.fullmatch(words):
        raise Wrong("must begin with http:// and a host, in ASCII and without spaces")
    return words


def address(value: Any, _type: Any = None) -> str:
    """An IP address, in its shortest form, so that two ways to write one are seen as one."""
    words = text(value)
    try:
        found = ipaddress.ip_address(words)
    except ValueError:
        near = {"localhost": "127.0.0.1", "*": "0.0.0.0", "": "0.0.0.0"}.get(words, "")  # noqa: S104 - a hint
        if words.startswith("[") and words.endswith("]") and _is_address(words[1:-1]):
            near = words[1:-1]
        raise Wrong("must be an IPv4 or IPv6 address", near) from None
    return str(found)


def network(value: Any, _type: Any = None) -> str:
    """A network, such as 192.0.2.0/24."""
    words = text(value)
    try:
        return str(ipaddress.ip_network(words))
    except ValueError:
        try:
            near = str(ipaddress.ip_network(words, strict=False))
        except ValueError:
            near = ""
        raise Wrong("must be an IP network, such as 192.0.2.0/24, with no bits set behind its prefix", near) from None


def _is_address(words: str) -> bool:
    try:
        ipaddress.ip_address(words)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=2)
def make_converter(directory: Path) -> Converter:
    """A converter for `model.Config`; relative paths are taken from `directory`."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)

    def path(value: Any, _type: Any) -> Path:
        words = text(value)
        if not words:
            raise Wrong("must be a path; leave the key out for none")
        if words.startswith("~"):
            raise Wrong(
                "must be a path that begins with / (or is taken from this file's directory); ~ means nothing here"
            )
        return directory / words

    hooks: list[tuple[Any, Callable[[Any, Any], Any]]] = [
        (str, text),
        (bool, boolean),
        (int, integer),
        (Path, path),
        (kinds.Port, port),
        (kinds.Count, at_least_one),
        (kinds.Size, at_least_one),
        (kinds.Seconds, seconds),
        (kinds.Hold, hold),
        (kinds.HostName, host_name),
        (kinds.HostPattern, host_pattern),
        (kinds.OptionalHostName, optional_host_name),
        (kinds.NextHop, next_hop),
        (kinds.HttpUrl, http_url),
        (kinds.Address, address),
        (kinds.Network, network),
        (kinds.Workers, workers),
        (kinds.FileMode, file_mode),
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
    """TOML has no null: what stands there is of the type."""
    (inner,) = (part for part in get_args(wanted) if part is not type(None))
    return lambda value, _type: converter.structure(value, inner)


def _choice(wanted: Any) -> Callable[[Any, Any], Any]:
    words = get_args(wanted)

    def structure(value: Any, _type: Any) -> str:
        if not isinstance(value, str) or value not in words:
            listed = " or ".join(filter(None, (", ".join(map(repr, words[:-1])), repr(words[-1]))))
            meant = _MEANT.get(str(value).casefold(), "")
            raise Wrong(f"must be {listed}", meant if meant in words else nearest(str(value), words))
        return value

    return structure


class BadElements(ExceptionGroup[Exception]):
    """Wrong elements of an array; `indexes` stands beside `exceptions`, from 0."""

    indexes: list[int]


def _array(wanted: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    inner = get_args(wanted)[0]
    tables = _is_table(inner)

    def structure(value: Any, _type: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            if tables and isinstance(value, dict):
                raise Wrong("must be an array of tables: write its name in double brackets, [[...]]")
            raise Wrong(f"must be an array in square brackets, not {kind(value)}")
        result, faults, indexes = [], [], []
        for index, element in enumerate(value):
            try:
                result.append(converter.structure(element, inner))
            except Exception as fault:
                faults.append(fault)
                indexes.append(index)
        if faults:
            group = BadElements("array", faults)
            group.indexes = indexes
            raise group
        return tuple(result)

    return structure


def _names_table(value: Any, _type: Any) -> dict[str, tuple[str, ...]]:
    """A table of names, each one or an array of them."""
    if not isinstance(value, dict):
        raise Wrong(f"must be a table, not {kind(value)}")
    found = {}
    for key, words in value.items():
        names = words if isinstance(words, list) else [words]
        try:
            found[text(key)] = tuple(map(text, names))
        except Wrong as fault:
            raise Wrong(f"{key!r}: {fault.reason}") from None
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
            raise Wrong("must be one table: write its name in single brackets, [...]")
        if not isinstance(value, dict):
            raise Wrong(f"must be a table, not {kind(value)}")
        return structure_table(value, of)

    return structure
