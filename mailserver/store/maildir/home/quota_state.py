"""The quota of an account object: its limits, the warnings of its user, and the looks at the disk before a refusal.

The highest threshold that the user was warned of is in a file, as the index is only a cache: "80" and a line end.
"""

from __future__ import annotations

import logging
import math
import os
import time
from typing import Final

from attrs import define

from mailserver.errors import MailError
from mailserver.store import quota
from mailserver.store.maildir.disk import safeio
from mailserver.store.quota import QuotaWarning
from mailserver.types import Quota, Usage

FILE_NAME: Final = "mailserver-quota-warned"
LOOK_EVERY: float = 1.0
"""Seconds between two looks at all mailboxes of an account that is over its quota."""

_log = logging.getLogger(__name__)


@define
class QuotaState:
    """Limits and warnings. Used in the account's thread, except for `limits` and `due`."""

    root: str
    limits: Quota = Quota()
    """Set on the reactor's thread."""
    due: QuotaWarning | None = None
    """A warning that the reactor's thread has not taken yet."""
    _looked: float = -math.inf

    @property
    def look_is_due(self) -> bool:
        """May the mailboxes be read before something is refused?"""
        return time.monotonic() - self._looked >= LOOK_EVERY

    def note_look(self) -> None:
        """Note that the mailboxes are read now."""
        self._looked = time.monotonic()

    def warn(self, limits: Quota, thresholds: tuple[int, ...], before: Usage, after: Usage, *, refused: bool) -> None:
        """Make a warning due if a change has reached a threshold, or did not fit. Under the account's lock."""
        if not thresholds:
            return
        percents = quota.percent_used(limits, before), quota.percent_used(limits, after)
        known = self._read()
        level, is_due = quota.warned_level(known, thresholds, *percents, refused=refused)
        if level != known:
            try:
                self._write(level)
            except (MailError, OSError) as error:
                # The user is warned once more after the next change.
                _log.warning("the quota warning of %s could not be noted: %r", self.root, error)
        if is_due:
            self.due = QuotaWarning(level, after, limits)

    @property
    def _path(self) -> str:
        return os.path.join(self.root, FILE_NAME)

    def _read(self) -> int:
        if not os.path.lexists(self._path):
            # As mostly: a stat is a third of a failed open.
            return 0
        try:
            text = safeio.read_file(self._path)
        except (FileNotFoundError, MailError):
            return 0
        return int(text) if text.strip().isdigit() else 0

    def _write(self, level: int) -> None:
        if level:
            safeio.replace(self._path, b"%d\n" % level)
        else:
            safeio.unlink(self._path)
