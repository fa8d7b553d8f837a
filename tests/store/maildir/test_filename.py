from __future__ import annotations

import os
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailserver.store.maildir.format.filename import (
    MaildirName,
    base_of,
    escaped_host,
    flag_letters,
    flags_mask,
    is_own,
    new_base,
    sized,
)

NAME = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=()), min_size=1, max_size=60)
MASK = st.one_of(st.integers(0, 2**31 - 1), st.integers(0, 2**505 - 1))


def test_a_name_of_dovecot_in_parts():
    name = MaildirName.parse("1276528487.M364837P9451.kurkku,S=1355,W=1394:2,FSab")
    assert name.base == "1276528487.M364837P9451.kurkku,S=1355,W=1394"
    assert (name.size, name.virtual_size) == (1355, 1394)
    assert name.letters == "FSab"
    # Bit layout of store.interfaces: keywords from bit 5 on.
    assert name.mask == FLAGGED | SEEN | 1 << 5 | 1 << 6


def test_each_letter_of_maildir_5():
    assert [flags_mask(letter) for letter in "DFRST"] == [DRAFT, FLAGGED, ANSWERED, SEEN, DELETED]
    assert flags_mask("z") == 1 << 30
    assert flags_mask("P!") == 0


def test_letters_stand_in_ascii_order_each_once():
    assert flag_letters(DRAFT | FLAGGED | ANSWERED | SEEN | DELETED | 1 << 5 | 1 << 30) == "DFRSTaz"
    assert flag_letters(SEEN | FLAGGED, "PPSX") == "FPSX"


def test_letters_that_mean_nothing_survive_a_change():
    assert MaildirName.parse("m:2,PS").with_mask(FLAGGED).format() == "m:2,FP"
    assert MaildirName.parse("m:2,PS,x=1").with_mask(0).format() == "m:2,P,x=1"


def test_names_without_flags():
    for text in ("m", "m:", "m:1,SF", "m:2", "m:2S"):
        assert MaildirName.parse(text).mask == 0
        assert MaildirName.parse(text).base == "m"
    assert MaildirName.parse("m").with_mask(SEEN).format() == "m:2,S"


def test_sizes_that_are_none():
    for text in ("m", "m,S=", "m,S=1x", "m,S=-1", "m,W=99999999999999999999", "m,S=²:2,S", "m:2,,S=5"):
        name = MaildirName.parse(text)
        assert (name.size, name.virtual_size) == (None, None), text


def test_a_new_base_is_read_back():
    base = new_base("mail.example.test", size=10, virtual_size=12)
    name = MaildirName.parse(base)
    assert name == (base, None)
    assert (name.size, name.virtual_size) == (10, 12)
    assert sized("m", 1, None) == "m,S=1"


def test_a_host_cannot_end_the_name():
    assert escaped_host("a/b:c,d") == "a\\057b\\072c\\054d"
    assert escaped_host("") == "localhost"
    base = new_base("../x:2,S\n\0")
    assert "/" not in base
    assert base_of(base) == base
    assert "\n" not in base


def test_bases_sort_in_the_order_they_were_made(monkeypatch):
    times = iter(
        [1_700_000_000_000_009_000, 1_700_000_000_000_010_000, 1_700_000_000_999_999_000, 1_700_000_001_000_000_000]
    )
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    made = [new_base("h") for _ in range(4)]
    assert sorted(made) == made


def test_bases_are_unique_over_threads_and_forks():
    made: list[str] = []

    def make() -> None:
        made.extend([new_base("h") for _ in range(200)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 800


def test_the_pid_is_that_of_the_caller_after_a_fork():
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_base("h").encode())
        os._exit(0)
    os.waitpid(child, 0)
    base = os.read(reader, 1000).decode()
    os.close(reader)
    os.close(writer)
    assert f"P{child}Q" in base


def test_own_names_are_told_from_those_of_other_programs():
    assert is_own(new_base("mail.example.test", size=5, virtual_size=6))
    assert is_own(new_base("h") + ":2,FS")
    others = ("1276528487.M364837P9451.host,S=1355,W=1394:2,FS", "1700000000.12345_0.host", "1.M1P1Q1R0.h", "x")
    assert not any(map(is_own, others))


@settings(max_examples=200)
@given(NAME)
def test_any_name_comes_back_letter_for_letter(text):
    name = MaildirName.parse(text)
    assert name.format() == text
    assert base_of(text) == name.base
    assert name.size is None or name.size >= 0


@settings(max_examples=200)
@given(NAME, MASK)
def test_a_mask_given_is_the_mask_read_and_the_base_stays(text, mask):
    name = MaildirName.parse(text)
    changed = MaildirName.parse(name.with_mask(mask).format())
    assert changed.mask == mask
    assert changed.base == name.base
    assert changed.with_mask(name.mask).mask == name.mask
