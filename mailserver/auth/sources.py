"""A back end with its settings, as the login service uses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from mailserver.auth.app_passwords import probe_of
from mailserver.auth.interfaces import FoundAppPassword
from mailserver.config.model import BackendUse
from mailserver.types import Secret


@frozen
class Source:
    """One back end of the configuration."""

    backend: Any
    """Provides IAuthBackend."""
    use: BackendUse = BackendUse("")

    def serves(self, names: Iterable[str]) -> bool:
        """May it know the account of which these are the possible names: in one of its domains, if it has any?"""
        domains = self.use.domains
        return not domains or any(name.rpartition("@")[2] in domains for name in names if "@" in name)


def find_app_password(
    sources: Iterable[Source], candidates: Sequence[str], password: Secret
) -> tuple[FoundAppPassword, Any] | None:
    """Find an app password of one of these users, wherever it may be used, and its back end. Raises: AuthUnavailable.

    `sources`: those that provide IAppPasswords.
    """
    probe = probe_of(password.reveal())
    if probe is None:
        return None
    for source in sources:
        found: FoundAppPassword | None = source.backend.find_app_password(probe) if source.serves(candidates) else None
        if found is not None and found.user.name in candidates:
            return found, source.backend
    return None
