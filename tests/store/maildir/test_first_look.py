"""The fast first look says what a slow one would."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from mailserver.store.maildir.filename import MaildirName
from mailserver.store.maildir.first_look import first_look
from mailserver.store.maildir.scan import classify

BASES = st.builds(
    "{:010d}{}".format, st.integers(1_000_000_000, 1_000_000_009), st.sampled_from(["", ".M1", ".M2,S=3", ".é", "x"])
)
ODD = st.sampled_from(["x", "99999.a", "10000000000.a", "1000000001:2,S:", "\udcff"])
NAMES = st.sets(
    st.one_of(st.builds("{}{}".format, BASES, st.sampled_from(["", ":2,", ":2,S", ":2,FSab", ":1,S", ":"])), ODD),
    max_size=12,
)


@given(NAMES, NAMES)
@example({"1000000001.a"}, {"1000000001.a:2,S"})
@example({"1000000002.a", "1000000000.b"}, {"1000000001.a:2,S"})
@example(set(), set())
def test_it_gives_up_or_is_right(new, cur):
    entries = first_look(list(new), list(cur), 7, 99)
    messages, duplicates = classify(new, cur)
    plain = all(name[:10].isdigit() and not name[10:11].isdigit() for name in (*new, *cur))
    if duplicates or not plain:
        assert entries is None
        return
    assert [facts[:2] for facts in entries] == [(uid, 99) for uid in range(7, 7 + len(messages))]
    assert {facts[5]: (("new", "cur")[facts[7]], facts[5] + facts[6]) for facts in entries} == messages
    for facts in entries:
        assert facts[2] == MaildirName.parse(facts[5] + facts[6]).mask
        assert facts[3:5] == (None, None)
    seconds = [facts[5][:10] for facts in entries]
    assert seconds == sorted(seconds)
