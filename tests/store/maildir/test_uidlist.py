from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist, uidlist_format
from tests.store.power import Journal

GUID = "3085f01b7f11094c501100008c4a11c1"
HEADER = f"3 V1275660208 N25022 G{GUID}\n".encode()
BODY = (
    b"25006 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,\n"
    b"25017 W1394 P1723 :1276533073.M242911P3632.kurkku:2,F\n"
    b"25021 :plain\n"
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "dovecot-uidlist")


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def test_the_format_of_version_3(path):
    put(path, HEADER + BODY)
    found = uidlist.read(path)
    assert found.uid_validity == 1275660208
    assert found.uid_next == 25022
    assert found.guid.hex() == GUID
    assert found.entries == {
        "1276528487.M364837P9451.kurkku,S=1355,W=1394": 25006,
        "1276533073.M242911P3632.kurkku": 25017,
        "plain": 25021,
    }
    assert not found.damaged
    assert found.lines == 3
    assert found.signature == uidlist.signature(path)


def test_the_header_alone(path):
    put(path, HEADER + BODY)
    assert uidlist.read_header(path) == (1275660208, bytes.fromhex(GUID))
    for data in (b"", HEADER[:-1], b"3 V5 N1\n", b"3 N1 G" + GUID.encode() + b"\n", BODY):
        put(path, data)
        assert uidlist.read_header(path) is None


def test_the_next_uid_is_above_the_last_line_when_n_is_old(path):
    put(path, f"3 V1 N2 G{GUID}\n7 :a\n".encode())
    assert uidlist.read(path).uid_next == 8


def test_version_1_is_read_and_calls_for_a_rewrite(path):
    put(path, b"1 1275660208 9\n3 a:2,S\n8 b\n")
    found = uidlist.read(path)
    assert (found.uid_validity, found.uid_next, found.entries) == (1275660208, 9, {"a": 3, "b": 8})
    assert found.damaged
    uidlist.rewrite(found)
    again = uidlist.read(path)
    assert not again.damaged
    assert (again.uid_validity, again.entries, again.guid) == (1275660208, {"a": 3, "b": 8}, found.guid)


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        (b"3 N5 G" + GUID.encode(), {"V"}), (b"3 V7 G" + GUID.encode(), {"N"}), (b"3 V7 N5", {"G"}),
        (b"3", {"V", "N", "G"}), (b"garbage", {"V", "N", "G"}), (b"3 V0 N0 Gxyz", {"V", "N", "G"}),
        (b"3 V99999999999 N5 G" + GUID.encode(), {"V"}), (b"\0\0\0", {"V", "N", "G"}),
    ],
)  # fmt: skip
def test_missing_header_parts_are_made_up(path, header, missing):
    put(path, header + b"\n4 :a\n")
    found = uidlist.read(path)
    assert found.header_missing == missing
    assert found.damaged
    assert found.entries == {"a": 4}
    assert found.uid_next == 5
    assert found.uid_validity > 0
    assert len(found.guid) == 16
    uidlist.rewrite(found)
    again = uidlist.read(path)
    assert not again.damaged
    assert (again.uid_validity, again.guid, again.entries) == (found.uid_validity, found.guid, {"a": 4})


def test_no_header_at_all(path):
    put(path, b"4 :a\n6 :b\n")
    found = uidlist.read(path)
    assert found.entries == {"a": 4, "b": 6}
    assert found.damaged


def test_a_torn_header_gives_no_number(path):
    put(path, b"3 V12756")
    found = uidlist.read(path)
    assert found.header_missing == {"V", "N", "G"}
    assert found.damaged


def test_an_empty_file(path):
    put(path, b"")
    found = uidlist.read(path)
    assert found.damaged
    assert found.entries == {}


@pytest.mark.parametrize(
    "line",
    [b"x :a", b"26000", b"26000 ", b"26000 :", b"26000 a", b"0 :a", b"4294967295 :a", b"99999999999999 :a", b"26000 :a/b",
     b"26000 W5 a", b"-5 :a", b" 26000 :a", b"\0\0\0\0", b"25021 :again", b"3 :low", b"\xff\xfe", b""],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_left_out_and_damage(path, line):
    put(path, HEADER + BODY + line + b"\n25900 :after\n")
    found = uidlist.read(path)
    assert found.damaged
    assert list(found.entries.values()) == [25006, 25017, 25021, 25900]
    uidlist.rewrite(found)
    assert not uidlist.read(path).damaged
    assert list(uidlist.read(path).entries) == list(found.entries)


def test_a_name_that_stands_twice_has_its_highest_uid(path):
    put(path, HEADER + b"25006 :a\n25007 :b\n25010 :a:2,S\n")
    found = uidlist.read(path)
    assert list(found.entries.items()) == [("b", 25007), ("a", 25010)]
    assert not found.damaged, "Dovecot takes it"


def test_names_that_are_not_utf_8_come_back(path):
    put(path, HEADER + b"25030 :\xff\xe4,S=1\n")
    found = uidlist.read(path)
    (base,) = found.entries
    assert os.fsencode(base) == b"\xff\xe4,S=1"
    uidlist.append(path, [(25031, base + "x")])
    assert get(path).endswith(b"\n25031 :\xff\xe4,S=1x\n")


def test_append_adds_lines_and_tells_the_new_state(path):
    put(path, HEADER + BODY)
    state = uidlist.append(path, [(25022, "a,S=1"), (25023, "b")])
    assert get(path) == HEADER + BODY + b"25022 :a,S=1\n25023 :b\n"
    assert state == uidlist.signature(path)
    found = uidlist.read(path)
    assert found.uid_next == 25024
    assert not found.damaged


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_an_append_behind_a_list_torn_at_any_byte(path, cut):
    """DESIGN of the format: a torn `4` before `5 :name` would be read as 45."""
    put(path, HEADER + BODY[:cut])
    whole = BODY[:cut].count(b"\n")
    before = uidlist.read(path)
    assert list(before.entries.values()) == [25006, 25017, 25021][:whole]
    assert before.damaged == (BODY[cut - 1 : cut] != b"\n")
    uidlist.append(path, [(26000, "new")])
    after = uidlist.read(path)
    assert list(after.entries.values()) == [*[25006, 25017, 25021][:whole], 26000]
    assert not after.damaged


def test_a_long_torn_tail_of_zeros_is_cut(path):
    put(path, HEADER + BODY + bytes(20000))
    uidlist.append(path, [(26000, "new")])
    assert get(path) == HEADER + BODY + b"26000 :new\n"


def test_a_file_without_any_lf_is_cut_to_nothing(path):
    put(path, b"3 V1")
    uidlist.append(path, [(5, "a")])
    assert get(path) == b"5 :a\n"


def test_an_append_survives_every_power_cut_whole_or_not_at_all(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    path = str(root / "dovecot-uidlist")
    put(path, HEADER + BODY + b"2")
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    uidlist.append(path, [(26000, "a"), (26001, "b")])
    old, new = [25006, 25017, 25021], [25006, 25017, 25021, 26000, 26001]
    for upto in range(len(journal.changes) + 1):
        target = tmp_path / f"cut{upto}"
        journal.leave(target, upto)
        found = uidlist.read(str(target / "dovecot-uidlist"))
        assert list(found.entries.values()) in (old, new)
        assert found.uid_validity == 1275660208
    assert list(found.entries.values()) == new


def test_an_append_without_space_leaves_the_list_as_it_was(path, monkeypatch):
    put(path, HEADER + BODY)

    def full(_fd, _data, _offset):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpace):
        uidlist.append(path, [(26000, "a")])
    assert get(path) == HEADER + BODY


def test_rewrite_keeps_fields_flags_and_unknown_header_parts(path):
    put(path, HEADER[:-1] + b" Xfoo\n" + BODY)
    found = uidlist.read(path)
    new = uidlist.rewrite(found, keep={"1276533073.M242911P3632.kurkku", "plain"}, add=[(26000, "new")])
    assert get(path) == (
        f"3 V1275660208 N26001 G{GUID} Xfoo\n".encode()
        + b"25017 W1394 P1723 :1276533073.M242911P3632.kurkku:2,F\n25021 :plain\n26000 :new\n"
    )
    assert new == uidlist.read(path)


def test_uidnext_survives_a_rewrite_without_the_last_message(path):
    put(path, f"3 V1 N2 G{GUID}\n7 :a\n9 :b\n".encode())
    uidlist.rewrite(uidlist.read(path), keep=lambda base: base == "a")
    again = uidlist.read(path)
    assert again.uid_next == 10
    assert again.entries == {"a": 7}


def test_rewrite_is_worth_it_when_a_quarter_is_dead(path):
    put(path, HEADER + b"".join(b"%d :m%d\n" % (n, n) for n in range(1, 101)))
    found = uidlist.read(path)
    assert not found.worth_rewriting(76)
    assert found.worth_rewriting(75)


def test_the_tail_is_what_was_appended(path):
    put(path, HEADER + BODY)
    known = uidlist.read(path)
    nothing = uidlist.read_tail(path, known.signature, 25021)
    assert nothing is not None
    assert nothing.entries == []
    uidlist.append(path, [(25022, "a"), (25040, "b")])
    tail = uidlist.read_tail(path, known.signature, 25021)
    assert tail is not None
    assert tail.entries == [(25022, "a"), (25040, "b")]
    assert tail.signature == uidlist.signature(path)
    assert not tail.damaged


def test_the_tail_of_another_file_is_none(path):
    put(path, HEADER + BODY)
    known = uidlist.read(path)
    uidlist.rewrite(known, add=[(26000, "a")])
    assert uidlist.read_tail(path, known.signature, 25021) is None
    put(path, HEADER)
    assert uidlist.read_tail(path, uidlist.Signature(*known.signature), 25021) is None


def test_a_replaced_list_with_the_same_inode_is_told_by_its_last_line(path):
    put(path, HEADER + BODY)
    known = uidlist.read(path).signature
    other = HEADER + b"25006 :somebody-else\n" + b"25009 :" + b"x" * (len(BODY) - 29) + b"\n25010 :c\n"
    assert other[known.size - 1 : known.size] == b"\n"
    put(path, other)
    assert uidlist.read_tail(path, known, 25021) is None


def test_a_known_end_within_a_line_is_another_file(path):
    put(path, HEADER + BODY)
    known = uidlist.read(path).signature
    put(path, HEADER + b"x" + BODY)
    assert uidlist.read_tail(path, known) is None
    put(path, HEADER + BODY + b"25022 :a\n")
    tail = uidlist.read_tail(path, known)
    assert tail is not None
    assert tail.entries == [(25022, "a")]


def test_a_damaged_tail_says_so(path):
    put(path, HEADER + BODY)
    known = uidlist.read(path).signature
    for added in (b"25022 :a\n2502", b"25022 :a\nx\n", b"25022 :a\n25022 :b\n"):
        put(path, HEADER + BODY + added)
        tail = uidlist.read_tail(path, known, 25021)
        assert tail is not None
        assert tail.entries == [(25022, "a")]
        assert tail.damaged


def test_no_file(path):
    assert uidlist.signature(path) is None
    with pytest.raises(FileNotFoundError):
        uidlist.read(path)


def test_create(path):
    made = uidlist.create(path, 77)
    assert get(path) == f"3 V77 N1 G{made.guid.hex()}\n".encode()
    assert uidlist.read(path) == made


def test_what_is_no_file_is_refused(path):
    os.mkfifo(path)
    with pytest.raises(StoreUnavailable):
        uidlist.read(path)


BASE = st.text(st.characters(blacklist_characters=":/\n\0", blacklist_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(BASE, st.just(0), max_size=12), st.data())
def test_any_list_comes_back_by_append_and_by_rewrite(tmp_path_factory, bases, data):
    path = str(tmp_path_factory.mktemp("list") / "dovecot-uidlist")
    uids = sorted(data.draw(st.sets(st.integers(1, 2**32 - 2), min_size=len(bases), max_size=len(bases))))
    pairs = list(zip(uids, bases, strict=True))
    uidlist.create(path, 5)
    split = data.draw(st.integers(0, len(pairs)))
    uidlist.append(path, pairs[:split])
    uidlist.append(path, pairs[split:])
    found = uidlist.read(path)
    assert list(found.entries.items()) == [(base, uid) for uid, base in pairs]
    assert not found.damaged
    assert uidlist.rewrite(found) == uidlist.read(path)
    assert uidlist.read(path).entries == found.entries


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_no_bytes_make_reading_fail_and_a_rewrite_always_mends(tmp_path_factory, data, with_header):
    path = str(tmp_path_factory.mktemp("list") / "dovecot-uidlist")
    put(path, (HEADER if with_header else b"") + data)
    found = uidlist.read(path)
    assert list(found.entries.values()) == sorted(set(found.entries.values()))
    assert all(uid < found.uid_next for uid in found.entries.values())
    uidlist.rewrite(found)
    again = uidlist.read(path)
    assert not again.damaged
    assert again.entries == found.entries


@pytest.mark.parametrize("part", [1, 7, 8, 9, 40])
def test_a_list_is_read_in_parts_that_end_with_a_line(tmp_path, monkeypatch, part):
    monkeypatch.setattr(uidlist_format, "_PART", part)
    path = str(tmp_path / "dovecot-uidlist")
    uidlist.create(path, 7)
    uidlist.append(path, [(uid, f"{uid}.M1") for uid in range(1, 30)])
    with open(path, "ab") as file:
        file.write(b"30 :torn")
    listed = uidlist.read(path)
    assert listed.entries == {f"{uid}.M1": uid for uid in range(1, 30)}
    assert listed.damaged
