"""Typed names in logs and records: some are passwords, typed into the wrong field."""

from __future__ import annotations

import re
from typing import Final

MAX_SHOWN: Final = 255
"""Characters of a name that are kept: anybody can send one."""

_ADDRESS: Final = re.compile(
    r"[^\W_](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w+-])?@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:[^\W\d_]{2,63}|xn--[a-z0-9-]{1,59})",
    re.IGNORECASE,
)
"""An address as people have them: a local part without quotes, a host name of two or more labels."""


def is_address(name: str) -> bool:
    """Has the name the form of an address of the Internet?"""
    return len(name) <= MAX_SHOWN and _ADDRESS.fullmatch(name) is not None


def shown_name(typed: str, *, is_user: bool = False) -> str:
    """A typed name as logs, traces and messages may show it; where it may be a password, its length only.

    `is_user`: an account of that name exists. Every line and record that has a name that a client typed gets it from here.
    """
    if is_user or is_address(typed):
        return typed[:MAX_SHOWN]
    return "" if not typed else f"({len(typed)} characters)"
