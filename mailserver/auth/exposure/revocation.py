"""App passwords that came in clear text: revoked by themselves, and their owners are informed by a message.

Whoever was on the path could use one at once, and its owner makes another one in a minute. A main password is only
recorded: without it the owner could not log in at all.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from mailserver.auth.backends.guard import Threads
from mailserver.auth.credential_store import CredentialStore, IStoresCredentials
from mailserver.auth.interfaces import User
from mailserver.errors import AuthUnavailable

_SUBJECT: Final = "An app password of yours was revoked"
_TEXT: Final = """\
The app password "{label}" of {user} was revoked, as a program sent it without
encryption ({protocol}, from {peer}). Others may have read it on the way.

The program cannot log in any more. Please set it to use TLS (SSL, encryption),
then give it a new app password. Other passwords go on working.
"""

_log = logging.getLogger(__name__)


class Revocations:
    """Revokes exposed app passwords, in one process. All calls are made on one thread."""

    def __init__(self, threads: Threads, inform: Callable[[User, str, str], None]) -> None:
        """`threads`: for the store. `inform`: send the user a message of that subject and text."""
        self.enabled = True
        self._threads = threads
        self._inform = inform

    async def revoke(self, backend: object, user: User, protocol: str, peer: str) -> bool:
        """Revoke the app password `user.credential`. Return False if that is not done, and the administrator must."""
        if not self.enabled or not IStoresCredentials.providedBy(backend):
            return False
        store = cast("CredentialStore", cast("Any", backend).credentials)
        revoking = self._threads.run(lambda: store.revoke(user, user.credential))
        try:
            label = await cast("Awaitable[str | None]", revoking)
        except AuthUnavailable as error:
            _log.error("an app password of %s came in clear text, and could not be revoked: %s", user.name, error)
            return False
        if label is not None:
            _log.warning("the app password %s of %s came in clear text and was revoked", label, user.name)
            peer = f"the address {peer}" if peer else "this host"
            self._inform(user, _SUBJECT, _TEXT.format(label=label, user=user.name, protocol=protocol, peer=peer))
        return True
