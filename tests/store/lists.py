"""A watch over every rewriting of a uidlist: no line of a message whose file is there may go, or get a lower UID."""

from __future__ import annotations

import os
from typing import Any

from mailserver.store.maildir.format import uidlist

_rewrite = uidlist.rewrite


def watched_rewrite(known: uidlist.UidList, *arguments: Any, **named: Any) -> uidlist.UidList:
    """What stands for `uidlist.rewrite`. Raises: AssertionError where a line is lost."""
    before = uidlist.read(known.path).entries if os.path.exists(known.path) else {}
    files = _bases(os.path.dirname(known.path))
    written = _rewrite(known, *arguments, **named)
    after = uidlist.read(known.path).entries
    lost = {base: uid for base, uid in before.items() if base in files and after.get(base, 0) < uid}
    assert not lost, f"rewriting {known.path} lost {len(lost)} of {len(before)} lines: {dict(list(lost.items())[:5])}"
    return written


def _bases(directory: str) -> set[str]:
    places = [os.path.join(directory, place) for place in ("new", "cur")]
    return {name.partition(":")[0] for place in places if os.path.isdir(place) for name in os.listdir(place)}
