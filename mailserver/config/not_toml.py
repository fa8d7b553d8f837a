"""Messages about a configuration file that is not TOML: the line, and the correction of common mistakes.

A value is not shown if its key may hold a secret or is unknown.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any, Final, get_args

from mailserver.config import dovecot

_AT: Final = re.compile(r"\(at line (\d+), column \d+\)")
_TWICE: Final = re.compile(r"Cannot (?:overwrite a value|declare .* twice)")
_SETTING: Final = re.compile(r"""\s*([A-Za-z0-9_-]+)\s*=\s*(.*?)\s*$""")
_HEADER: Final = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_.-]+)\s*\]{1,2}\s*(?:#.*)?$")
_NO_EQUALS: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?::\s|\s+[^=\s])")
_BLOCK: Final = re.compile(r"[a-z_]+(?:\s+[^\s={]+)?\s*\{\s*(?:\}\s*)?$")
_INCLUDE: Final = re.compile(r"!include(?:_try)?\s")
_TRUTH: Final = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
_DOVECOT_WORDS: Final = frozenset(
    [
        "auth_mechanisms",
        "dovecot_config_version",
        "dovecot_storage_version",
        "mail_driver",
        "mail_home",
        "mail_location",
        "mail_path",
        "mail_plugins",
        "protocols",
        "ssl_cert",
        "ssl_key",
        "ssl_server_cert_file",
        "ssl_server_key_file",
    ]
)


def is_dovecots(text: str) -> bool:
    """Is the text a dovecot.conf, judging by its blocks, inclusions and settings?"""
    lines = [line.strip() for line in text.splitlines()]
    words = sum(line.partition("=")[0].strip() in _DOVECOT_WORDS for line in lines)
    blocks = sum(_BLOCK.match(line) is not None for line in lines)
    return blocks + words > 1 or any(_INCLUDE.match(line) for line in lines)


def explain(text: str, error: tomllib.TOMLDecodeError, kind_of: Callable[[str, str], type | None]) -> str:
    """Explain the error. `kind_of(table, key)`: the type of a key; None for an unknown key, and for secrets."""
    at, is_second = _AT.search(str(error)), _TWICE.search(str(error)) is not None
    plain = f"is not TOML: {str(error).replace(chr(10), ' ')}"
    lines = text.split("\n")
    number = int(at[1]) if at is not None else len(lines) if is_second else 0
    if not 1 <= number <= len(lines):
        return plain
    line = lines[number - 1].rstrip("\r")
    header, setting = _HEADER.match(line), _SETTING.match(line)
    if header is not None and is_second:
        return f"is not TOML: line {number}: [{header[1]}] is defined twice: merge the two tables"
    if setting is None:
        no_equals = _NO_EQUALS.match(line)
        if no_equals is not None:
            return f"is not TOML: line {number} has no = between {no_equals[1]} and its value"
        return plain
    key, value = setting[1], _without_comment(setting[2])
    if _is_toml(f"k = {value}"):
        if is_second:
            return f"is not TOML: line {number}: {key} is defined twice in its table"
        return plain
    kind = kind_of(_table_at(lines, number - 1), key)
    if kind is None and (ours := dovecot.instead(key)):
        return f"is not TOML: line {number}: {key} is a setting of Dovecot; here: {ours}"
    return f"is not TOML: line {number}: {key} {_correction(value, key, kind)}"


def _correction(value: str, key: str, kind: type | None) -> str:
    """The fault of a value, and the corrected line if the value may be shown."""
    if not value:
        return "has no value"
    if value.lower() in _TRUTH and kind is bool:
        return f"must be true or false: {key} = {_TRUTH[value.lower()]}"
    if value[0] in "\"'" and not value[1:].replace('\\"', "").count(value[0]):
        return "has text whose closing quote is missing"
    if kind in (int, float):
        return "must be a number, without quotes or unit"
    if value[0] in "\"'{":
        return "has a value that is not TOML"
    words = value.strip("[]").split(",")
    quoted = [each.strip() if each.strip()[:1] in {'"', "'"} else _quote(each) for each in words if each.strip()]
    right = f"[{', '.join(quoted)}]" if kind is tuple or value.startswith("[") else _quote(value)
    if kind is None or not _is_toml(f"k = {right}"):
        return "must have its text in quotes"
    return f"must have its text in quotes: {key} = {right}"


def _quote(value: str) -> str:
    return json.dumps(value.strip(), ensure_ascii=False)


def _without_comment(value: str) -> str:
    return re.sub(r"\s+#.*$", "", value)


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _table_at(lines: list[str], index: int) -> str:
    """The table that a line belongs to."""
    for line in reversed(lines[:index]):
        header = _HEADER.match(line)
        if header is not None:
            return header[1]
    return ""


def base_kind(hint: Any) -> type | None:
    """The TOML type for a type of the model: bool, int, float, tuple or str."""
    hint = next((part for part in get_args(hint) if type(None) in get_args(hint) and part is not type(None)), hint)
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    origin = getattr(hint, "__origin__", hint)
    if origin in (bool, int, float, tuple):
        return origin  # type: ignore[no-any-return]
    return str
