"""The optional interface of back ends whose credentials the server itself may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from zope.interface import Attribute, Interface

from mailserver.auth.interfaces import User


class CredentialStore(Protocol):
    """The credentials of a back end. All methods block, and are called in any thread, one at a time."""

    def missing_scram(self, user: User) -> Mapping[str, str]:
        """The hashes under which the main password has no SCRAM keys, and "rounds,salt" for new ones; empty: any.

        Raises: AuthUnavailable.
        """

    def renew(self, user: User, before: str, after: str, scram: Mapping[str, str]) -> bool:
        """Replace the stored entry `before` of the main password, which stays, and add SCRAM keys.

        `scram`: `ScramKeys.text()` by hash. Return False if the entry is another one by now. Raises: AuthUnavailable.
        """

    def revoke(self, user: User, credential: str) -> str | None:
        """Revoke an app password that came in clear text. Return its label; None if it is gone. Raises: AuthUnavailable."""


class IStoresCredentials(Interface):
    """Optional: the server may make hashes anew and revoke app passwords."""

    credentials = Attribute("A `CredentialStore`.")
