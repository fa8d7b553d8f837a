"""The Maildir store as tests open it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mailserver.message.render import summarise
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import reserved_space
from tests.store.decisions import decided_below

USER = "anna@example.test"
INDEX_FILES = tuple("mailserver-index.sqlite" + end for end in ("", "-wal", "-shm"))


def open_store(root: str, bounds: Bounds | None = None, quota_warnings: Sequence[int] = ()) -> MaildirStore:
    """A store without special-use folders, as another process would open it; the reserved space is there as a file only."""
    os.makedirs(root, exist_ok=True)
    path = os.path.join(root, reserved_space.FILE_NAME)
    if not os.path.exists(path):
        with open(path, "wb") as stream:
            stream.truncate(reserved_space.SIZE)
    return MaildirStore(
        root,
        summarise,
        special_use={},
        hostname="host.example.test",
        bounds=bounds or Bounds(),
        quota_warnings=quota_warnings,
        decided=decided_below(root),
    )


def account_root(root: str) -> str:
    """Where the account of USER lies."""
    return os.path.join(root, "example.test", "anna", "Maildir")


@contextmanager
def scratch() -> Iterator[str]:
    """A directory in memory where there is one: these tests sync thousands of times, and only the order counts."""
    memory = "/dev/shm"
    path = tempfile.mkdtemp(prefix="mailserver-", dir=memory if os.access(memory, os.W_OK) else None)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
