"""SASL LOGIN (draft-murchison-sasl-login-00): the server asks for the name, then for the password.

It is obsolete, but some clients have nothing else. They compare the prompts with the words below instead of the draft's
"User Name" and "Password", so these are sent. An initial response is taken as the name.
"""

from __future__ import annotations

import enum

from mailserver.sasl.mechanism import Challenge, Credentials, Done, Failed, Step
from mailserver.types import Secret

MAX_RESPONSE = 2048
"""Longest name or password taken, octets."""


class _Expects(enum.Enum):
    NAME = "name"
    PASSWORD = "password"  # noqa: S105
    NOTHING = "nothing"


class Login:
    """One exchange of LOGIN: name and password are UTF-8 without NUL, neither is empty."""

    def __init__(self) -> None:
        self._expects = _Expects.NAME
        self._name = ""

    def step(self, response: bytes | None) -> Step:
        """Ask for the name, then for the password, then be done."""
        if self._expects is _Expects.NOTHING:
            return Failed("the exchange is over")
        if response is None:
            return Challenge(b"Username:" if self._expects is _Expects.NAME else b"Password:")
        if len(response) > MAX_RESPONSE:
            return self._fail("the response is too long")
        if not response:
            return self._fail("user name and password must not be empty")
        if b"\0" in response:
            return self._fail("the response contains NUL")
        try:
            text = response.decode("utf-8")
        except UnicodeDecodeError:
            return self._fail("the response is not UTF-8")
        if self._expects is _Expects.NAME:
            self._name = text
            self._expects = _Expects.PASSWORD
            return Challenge(b"Password:")
        self._expects = _Expects.NOTHING
        return Done(Credentials(self._name, Secret(response)))

    def _fail(self, reason: str) -> Failed:
        self._expects = _Expects.NOTHING
        return Failed(reason)
