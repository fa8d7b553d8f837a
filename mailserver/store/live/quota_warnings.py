"""Mail to a user whose account is nearly full (`notices`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from mailserver.errors import MailError
from mailserver.store.live.notices import Notices
from mailserver.store.quota import QuotaWarning
from mailserver.types import UNLIMITED

MOST_TEXT: Final = 64 * 1024
"""Octets of the file with the text that are used."""
_NEARLY: Final = """\
Your mailbox is {percent} % full
Your mail takes {used} of {limit}. Once all of that is used, new mail to {user} is refused.

Please delete mail that you do not need, and empty the trash.
"""
_FULL: Final = """\
Your mailbox is full
Your mail takes {used} of {limit}. New mail to {user} is refused until there is room again.

Please delete mail that you do not need, and empty the trash.
"""

_log = logging.getLogger(__name__)


class QuotaWarnings:
    """Delivers the warnings of all accounts."""

    def __init__(self, notices: Notices, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """`spawn` runs a coroutine and logs its exceptions."""
        self.text_file: Path | None = None
        """Subject and text, in place of those in English."""
        self._notices = notices
        self._spawn = spawn

    def send(self, user: str, home: str | None, warning: QuotaWarning) -> None:
        """Deliver a warning, after the operation that has caused it."""
        self._spawn(self._deliver(user, home, warning))

    async def _deliver(self, user: str, home: str | None, warning: QuotaWarning) -> None:
        try:
            await self._notices.deliver(user, home, lambda: fill(self._template(warning), user, warning))
        except MailError as error:
            _log.warning("the quota warning of %s at %d %% failed: %s", user, warning.threshold, error.reason)
        else:
            _log.info("user %s was warned of a quota that is %d %% used", user, warning.threshold)

    def _template(self, warning: QuotaWarning) -> str:
        if self.text_file is not None:
            try:
                with self.text_file.open("rb") as file:
                    return file.read(MOST_TEXT).decode()
            except (OSError, ValueError) as error:
                _log.error("the text of quota warnings cannot be read, and one in English is used: %s", error)
        return _FULL if warning.threshold >= 100 else _NEARLY


def fill(template: str, user: str, warning: QuotaWarning) -> tuple[str, str]:
    """Subject and text. The template's first line is the subject; its fields are {user}, {percent}, {used}, {limit}."""
    used, limit = _closer_limit(warning)
    for name, value in (("user", user), ("percent", str(warning.threshold)), ("used", used), ("limit", limit)):
        template = template.replace("{" + name + "}", value)
    subject, _, text = template.replace("\r\n", "\n").partition("\n")
    return " ".join(subject.split()) or "Quota", text


def _closer_limit(warning: QuotaWarning) -> tuple[str, str]:
    """Return usage and limit of what is fuller, octets or messages, in words."""
    quota, usage = warning.quota, warning.usage
    storage, messages = quota.storage, quota.messages
    if storage is None or storage == UNLIMITED:
        return f"{usage.messages}", f"{messages} messages"
    if messages not in {None, UNLIMITED} and messages and usage.messages * storage > usage.storage * messages:
        return f"{usage.messages}", f"{messages} messages"
    return _size(usage.storage), _size(storage)


def _size(octets: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if octets >= unit:
            return f"{octets / unit:.1f} {name}"
    return f"{octets / 1024:.0f} KiB"
