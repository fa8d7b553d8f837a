"""Validation of single values: a strict structure hook for each type in `kinds`.

cattrs alone turns "5" into 5, 1 into True and 3.9 into 3; these hooks refuse a value of another type. A hook raises
`InvalidValue`, whose sentence says what would be right. A hook sees one value; `check` compares values with each other.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mailserver.idn import ascii_name

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HTTP_URL = re.compile(r"http://[A-Za-z0-9.:\[\]-]{1,259}(?:/[!-~]{0,700})?")

_SIZE = re.compile(r"([0-9]{1,18}) ?(?:([kmgt])i?)?b?", re.IGNORECASE | re.ASCII)

_LONGEST_VALUE: Final = 60

MOST_WORKERS: Final = 256
MAX_GREETING_DELAY: Final = 5.0


class InvalidValue(ValueError):
    """A value that is refused; `reason` says what would be right."""

    def __init__(self, reason: str, near: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.near = near


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or "". Case is ignored."""
    by_fold = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else ""


def kind(value: object) -> str:
    """The name of a value's TOML type."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "text", int: "a whole number", float: "a decimal number", list: "an array", dict: "a table"}
    return names.get(type(value), "a date or time")


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def as_toml(value: Any) -> str:
    """A value as TOML on one line, truncated when long; "" for tables and None."""
    if value is None or isinstance(value, dict) or (isinstance(value, list) and any(map(_is_dict, value))):
        return ""
    if isinstance(value, Path):
        # Never truncated: the end of a path identifies the file.
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
        raise InvalidValue(f"must be text in quotes, not {kind(value)}")
    if _CONTROL.search(value):
        raise InvalidValue("must not contain control characters or line breaks")
    return value


def boolean(value: Any, _type: Any = None) -> bool:
    """True or false, no other words."""
    if not isinstance(value, bool):
        near = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
        raise InvalidValue(f"must be true or false, not {kind(value)}", near.get(str(value).lower(), ""))
    return value


def integer(value: Any, _type: Any = None) -> int:
    """A whole number, not quoted and not a boolean."""
    if isinstance(value, bool) or not isinstance(value, int):
        quoted = ": write it without quotes" if isinstance(value, str) and value.isdigit() else ""
        raise InvalidValue(f"must be a whole number, not {kind(value)}{quoted}")
    return value


def at_least_one(value: Any, _type: Any = None) -> int:
    """A count or a size."""
    number = integer(value)
    if number < 1:
        raise InvalidValue("must be at least 1")
    if number > 2**62:
        raise InvalidValue("must be smaller")
    return number


def limit(value: Any, _type: Any = None) -> int:
    """A number, or 0 for no limit."""
    number = integer(value)
    if number < 0:
        raise InvalidValue("must be at least 0, which is no limit")
    if number > 2**62:
        raise InvalidValue("must be smaller")
    return number


def size_limit(value: Any, _type: Any = None) -> int:
    """Octets, or 0 for no limit; a number, or text with a unit."""
    if not isinstance(value, str):
        return limit(value)
    octets = parse_size(value)
    if octets is None or octets > 2**62:
        raise InvalidValue('must be octets, or text with a unit of 1024, such as "500M", "10G" or "1T"')
    return octets


def parse_size(words: str) -> int | None:
    """Parse octets with a unit of 1024, as Dovecot does: 10, 10k, 10M, 10GB, 10TiB; "unlimited" is 0. None: it is none."""
    if words.lower() == "unlimited":
        return 0
    found = _SIZE.fullmatch(words)
    if found is None:
        return None
    return int(found[1]) << 10 * " kmgt".index((found[2] or " ").lower())


def workers(value: Any, _type: Any = None) -> int | str:
    """A number of processes, or "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise InvalidValue('must be a whole number, or "auto"', "auto" if nearest(value, ("auto",)) else "")
        return value
    number = integer(value)
    if not 0 <= number <= MOST_WORKERS:
        raise InvalidValue(f"must be from 0 to {MOST_WORKERS}")
    return number


def port(value: Any, _type: Any = None) -> int:
    """A TCP port."""
    number = integer(value)
    if not 1 <= number <= 65535:
        raise InvalidValue("must be a port from 1 to 65535")
    return number


def file_mode(value: Any, _type: Any = None) -> str:
    """A file mode in octal digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        near = f"{value:o}" if 0o100 <= value <= 0o777 else ""
        raise InvalidValue(
            'must be text in quotes, as the base of a number is ambiguous: "0660"', near and as_toml("0" + near)
        )
    words = text(value)
    if not re.fullmatch(r"0?[0-7]{3}", words):
        raise InvalidValue('must be three octal digits as for chmod, with or without a leading 0: "0660"')
    return words


def seconds(value: Any, _type: Any = None) -> float:
    """A time above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"must be a number of seconds, not {kind(value)}")
    # A reactor cannot wait for infinity or NaN; a hundred years are enough.
    if not math.isfinite(value) or not 0 < value <= 3.2e9:
        raise InvalidValue("must be a number of seconds above 0")
    return float(value)


def greeting_delay(value: Any, _type: Any = None) -> float:
    """A time that every client waits for: short, or none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"must be a number of seconds, not {kind(value)}")
    if not 0 <= value <= MAX_GREETING_DELAY:
        raise InvalidValue(
            f"must be from 0 to {MAX_GREETING_DELAY:g} seconds: every client waits that long",
            "0.1" if value > 10 else "",
        )
    return float(value)


def host_name(value: Any, _type: Any = None) -> str:
    """RFC 1123 2.1: labels of letters, digits and inner hyphens, 253 octets in all."""
    name = text(value)
    if not name.isascii():
        raise InvalidValue("must be written in ASCII (xn--...)", ascii_name(name) or "")
    bare = name.removesuffix(".")
    if bare.startswith("*."):
        raise InvalidValue("must not be a wildcard")
    if _is_address(bare):
        raise InvalidValue("must be a host name, not an IP address")
    if len(bare) > 253 or not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise InvalidValue("must be a host name: letters, digits and hyphens in labels of at most 63, joined by dots")
    if bare != name:
        raise InvalidValue("must not end in a dot", bare)
    return name.lower()


def host_pattern(value: Any, _type: Any = None) -> str:
    """A host name, or *.name."""
    name = text(value)
    if "*" in name.removeprefix("*."):
        raise InvalidValue("a wildcard is `*.` and a name; it stands for one whole label")
    if not name.startswith("*."):
        return host_name(name)
    parent = host_name(name[2:])
    if "." not in parent:
        raise InvalidValue("a wildcard needs a name of two labels behind it, such as *.example.org")
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
        raise InvalidValue("must begin with http:// and a host, in ASCII and without spaces")
    return words


def address(value: Any, _type: Any = None) -> str:
    """An IP address in its shortest form, so that two notations of one are equal."""
    words = text(value)
    try:
        found = ipaddress.ip_address(words)
    except ValueError:
        near = {"localhost": "127.0.0.1", "*": "0.0.0.0", "": "0.0.0.0"}.get(words, "")  # noqa: S104 - a hint
        if words.startswith("[") and words.endswith("]") and _is_address(words[1:-1]):
            near = words[1:-1]
        raise InvalidValue("must be an IPv4 or IPv6 address", near) from None
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
        raise InvalidValue("must be an IP network, such as 192.0.2.0/24, without host bits", near) from None


def _is_address(words: str) -> bool:
    try:
        ipaddress.ip_address(words)
    except ValueError:
        return False
    return True
