"""The fast first look says what a slow one would."""

from __future__ import annotations

import os

from hypothesis import example, given
from hypothesis import strategies as st

from mailserver.store.flags import SEEN
from mailserver.store.maildir.format.filename import MaildirName
from mailserver.store.maildir.sync import first_scan as module
from mailserver.store.maildir.sync.first_scan import UnlistedMessages, first_scan
from mailserver.store.maildir.sync.scan import classify

BASES = st.builds(
    "{:010d}{}".format, st.integers(1_000_000_000, 1_000_000_009), st.sampled_from(["", ".M1", ".M2,S=3", ".é", "x"])
)
ODD = st.sampled_from(["x", "99999.a", "10000000000.a", "1000000001:2,S:", "\udcff", "1000000001.a\n1000000002.b"])
NAMES = st.sets(
    st.one_of(st.builds("{}{}".format, BASES, st.sampled_from(["", ":2,", ":2,S", ":2,FSab", ":1,S", ":"])), ODD),
    max_size=12,
)


def rows_of(look):
    """(uid, flags, base, suffix, place) of all that its blocks hold."""
    return [
        row
        for block in look.blocks(5)
        for row in zip(block.uids, block.flags, block.bases, block.suffixes, block.places, strict=True)
    ]


@given(NAMES, NAMES)
@example({"1000000001.a"}, {"1000000001.a:2,S"})
@example({"1000000002.a", "1000000000.b"}, {"1000000001.a:2,S"})
@example(set(), set())
def test_it_gives_up_or_is_right(new, cur):
    found = first_scan(list(new), list(cur))
    messages, duplicates = classify(new, cur)
    plain = all(name[:10].isdigit() and not name[10:11].isdigit() and "\n" not in name for name in (*new, *cur))
    if duplicates or not plain or not messages:
        assert found is None
        return
    assert found is not None
    by_base = sorted((base, place) for base, place in messages.items())
    assert UnlistedMessages.of(by_base) == found or len({len(name) for name in (*new, *cur)}) > 1
    assert found.part(0, 2).bases + found.part(2, 99).bases == found.bases
    assert found.without({found.bases[0]}) == found.part(1, len(found))
    look = found.with_uids(7)
    rows = rows_of(look)
    assert [row[0] for row in rows] == list(range(7, 7 + len(messages)))
    names = [(os.fsdecode(base), os.fsdecode(base + suffix)) for _uid, _mask, base, suffix, _place in rows]
    assert {base: (("new", "cur")[row[4]], name) for (base, name), row in zip(names, rows, strict=True)} == messages
    assert [row[1] for row in rows] == [MaildirName.parse(name).mask for _base, name in names]
    seconds = [base[:10] for base, _name in names]
    assert seconds == sorted(seconds)
    assert b"".join(look.lines()) == os.fsencode(
        "".join([f"{row[0]} :{base}\n" for row, (base, _) in zip(rows, names, strict=True)])
    )
    seen = [row[0] for row in rows if row[4]]
    assert look.first_recent == max(seen, default=6) + 1


def test_names_beyond_one_part_stay_in_order(monkeypatch):
    monkeypatch.setattr(module, "_PART", 3)
    monkeypatch.setattr(module, "BLOCK_MESSAGES", 4)
    names = [f"{1_700_000_000 + number}.a{number}:2,{'S' * (number % 3 == 0)}" for number in range(10)]
    look = first_scan(names[7:], names[6::-1]).with_uids(1)
    assert [(uid, mask, (base + suffix).decode(), place) for uid, mask, base, suffix, place in rows_of(look)] == [
        (number + 1, SEEN if number % 3 == 0 else 0, name, number < 7) for number, name in enumerate(names)
    ]
    assert b"".join(look.lines()).count(b"\n") == 10
    # The same base twice, in different parts of the work.
    assert first_scan([*names, "1700000000.a0:2,T"], []) is None
