"""The decisions about messages with several copies here: the table of the mail queue, opened when it is first needed.

A server whose messages have one copy each never opens it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from mailserver.errors import StorageFailure
from mailserver.queue.commit_lock import WAITS
from mailserver.queue.disk import boundary, sync_directory
from mailserver.queue.mail_queue import ASKING, MailQueue
from mailserver.queue.model import QueueBusy, Settings
from mailserver.queue.rows import FILE_NAME


class QueueDecisions:
    """Implements `filing.interfaces.CopyDecisions`, and has what `MaildirStore` asks. For one process, in any thread."""

    def __init__(self, directory: Path, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
        self._directory = directory
        self._settings = settings
        self._opening = threading.Lock()
        self._queue: MailQueue | None = None
        self._failed = 0
        """How often it could not be opened."""

    def get_ready(self) -> None:
        """See CopyDecisions."""
        self._open()

    def decide(self, token: str) -> None:
        """See CopyDecisions."""
        self._open().accept([], token)

    def decided(self, token: str) -> bool:
        """Tell whether a token was decided, and refuse it from now on if it was not.

        Raises: StorageFailure if there is no table, as the table of the copies is elsewhere then; and as get_ready.
        """
        if self._queue is None and not (self._directory / FILE_NAME).exists():
            raise StorageFailure(f"nothing is decided in {self._directory}: it has no {FILE_NAME}")
        return self._open(ASKING).decided(token)

    def forget(self, tokens: Sequence[str]) -> None:
        """See CopyDecisions."""
        self._open().forget(tokens)

    def close(self) -> None:
        """Close the table. The next use opens it again."""
        with self._opening:
            queue, self._queue = self._queue, None
            if queue is not None:
                queue.close()

    def _open(self, waits: float = WAITS) -> MailQueue:
        queue = self._queue
        if queue is not None:
            return queue
        failed = self._failed
        if not self._opening.acquire(timeout=waits):
            raise QueueBusy
        try:
            if self._queue is None:
                if self._failed != failed:
                    # One after another they would keep the threads of all accounts.
                    raise QueueBusy
                self._queue = self._opened(waits)
            return self._queue
        finally:
            self._opening.release()

    def _opened(self, waits: float) -> MailQueue:
        try:
            with boundary():
                if not self._directory.is_dir():
                    self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    # What is decided must not be lost with the directory.
                    sync_directory(self._directory.parent)
            return MailQueue(self._directory, self._settings, waits=waits)
        except BaseException:
            self._failed += 1
            raise
