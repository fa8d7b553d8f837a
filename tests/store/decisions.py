"""What is decided in tests: the tokens that copies in several accounts wait for."""

from __future__ import annotations

import os
from collections.abc import Callable

from mailserver.store.maildir.disk import safeio

ALWAYS = "always"
"""A token that is decided everywhere."""
_NAME = "mailserver-decided."


def decide(root: str, token: str) -> None:
    """Commit a token, durably, below the root of a store."""
    safeio.replace(os.path.join(root, _NAME + token), b"")


def decided_below(root: str) -> Callable[[str], bool]:
    """What a store at that root asks."""
    return lambda token: token == ALWAYS or os.path.exists(os.path.join(root, _NAME + token))
