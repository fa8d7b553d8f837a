"""The expunges that a worker remembers of a mailbox that it has open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store import recent_expunges
from mailserver.store.recent_expunges import RecentExpunges


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=4), max_size=12), st.integers(0, 40))
def test_expunges_after_a_modseq(steps: list[list[int]], since: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent_expunges, "MOST", 3)
        recent = RecentExpunges(5)
        made: list[tuple[int, int]] = []
        for number, uids in enumerate(steps):
            modseq = 6 + 2 * number
            recent.add(sorted(uids), modseq)
            made += [(modseq, uid) for uid in uids]
        found = recent.after(since)
        if found is None:
            assert since < 5 or sum(modseq > since for modseq, _uid in made) >= 3
        else:
            assert since >= 5
            assert list(found) == sorted(uid for modseq, uid in made if modseq > since)
        assert recent.after(6 + 2 * len(steps)) is not None
        assert len(recent._uids) <= 2 * 3
