"""The rules for what an administrator writes, the same for commands and documents (no I/O).

Each function returns the value as it is stored, and raises ValueError with the reason, for a sentence about what was written.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

LONGEST_ADDRESS: Final = 255
LONGEST_SECRET: Final = 4096
LONGEST_WHY: Final = 200
LONGEST_LABEL: Final = 60
MOST_APP_PASSWORDS: Final = 32
"""Of one account."""
LONGEST_NOTE: Final = 4096
LONGEST_PATH: Final = 4095
"""PATH_MAX of Linux, without its NUL."""
LONGEST_NAME: Final = 1000
"""Of a full name."""
DETAILS: Final = "+-=_#!$%&*~|^"
"""Separators of details that a domain may have."""
_DIGEST: Final = re.compile("[0-9a-f]{64}")
LATEST: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""


def name(text: str) -> str:
    """A name before it is normalised, which takes time for a long one."""
    if not 0 < len(text) <= LONGEST_ADDRESS:
        raise ValueError(f"a name must have 1 to {LONGEST_ADDRESS} characters")
    return text


def secret(text: str) -> str:
    """A password's hash, or SCRAM keys."""
    if len(text) > LONGEST_SECRET:
        raise ValueError(f"a password's hash or keys have at most {LONGEST_SECRET} characters")
    return text


def home(text: str) -> str:
    """A home directory; empty: none."""
    if len(text) > LONGEST_PATH:
        raise ValueError(f"home is longer than {LONGEST_PATH} characters")
    if not text.isprintable():
        raise ValueError("home has control characters")
    if text and not text.startswith("/"):
        raise ValueError("home must be an absolute path")
    if ".." in text.split("/"):
        raise ValueError("home must not have .. as a part")
    return text


def full_name(text: str) -> str:
    """A person's name; empty: none."""
    if not text.isprintable():
        raise ValueError("full_name has control characters")
    if len(text) > LONGEST_NAME:
        raise ValueError(f"full_name is longer than {LONGEST_NAME} characters")
    return text


def note(text: str) -> str:
    """Words for the administrator; they may have several lines."""
    if len(text) > LONGEST_NOTE:
        raise ValueError(f"a note has at most {LONGEST_NOTE} characters")
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError("a note has no NUL, and is Unicode")
    return text


def why(text: str) -> str:
    """The reason for a delegate."""
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_WHY:
        raise ValueError(f"the reason must be 1 to {LONGEST_WHY} printable characters")
    return text.strip()


def label(text: str) -> str:
    """The label of an app password."""
    if not text.strip() or len(text) > LONGEST_LABEL or not text.isprintable():
        raise ValueError(f"a label has 1 to {LONGEST_LABEL} printable characters, such as phone")
    return text.strip()


def digest(text: str) -> str:
    """The SHA-256 of an app password."""
    if not _DIGEST.fullmatch(text):
        raise ValueError("digest must be a SHA-256, 64 digits of lower-case hexadecimal")
    return text


def made_by(text: str) -> str:
    """The maker of an app password; empty: unknown."""
    if not text.isprintable() or len(text) > LONGEST_ADDRESS:
        raise ValueError(f"made_by has at most {LONGEST_ADDRESS} printable characters")
    return text


def detail(text: str) -> str:
    """The separator of details in a domain; empty: there are none."""
    if len(text) > 1 or text not in DETAILS:
        raise ValueError(f"detail must be empty or one of {' '.join(DETAILS)}")
    return text


def time(number: int) -> int:
    """A time, in seconds since 1970."""
    if not 0 <= number <= LATEST:
        raise ValueError(f"a time is a number of seconds since 1970, at most {LATEST}")
    return number


def over(name: str, account: str, domains: Container[str], users: Container[str], *, others: bool) -> str:
    """Whom an account may log in as: a user or a domain, in lower case.

    `domains`: all that are here. `users`: all that are known. `others`: a back end may have users besides.
    """
    if name == account:
        raise ValueError(f"{name} logs in as itself without this")
    if name.startswith("@"):
        raise ValueError(f"{name} is the name of a catch-all: a domain is written without @")
    if name in domains or name in users:
        return name
    local, _at, domain = name.rpartition("@")
    if not local or domain not in domains:
        raise ValueError(f"{name!r} is neither a user nor a domain here: `mailserver domain list` lists them")
    if not others:
        raise ValueError(f"there is no user {name}: `mailserver user list` lists them")
    return name
