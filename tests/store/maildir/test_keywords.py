from __future__ import annotations

import os

import pytest

from mailserver.errors import BadSyntax, LimitReached
from mailserver.store.flags import DELETED, SEEN
from mailserver.store.maildir.format import keywords
from mailserver.store.maildir.format.keywords import Keywords


def test_a_file_of_dovecot(tmp_path):
    path = tmp_path / "dovecot-keywords"
    path.write_bytes(b"0 MyKey\n1 $Forwarded\n")
    found = keywords.read(str(path))
    assert found.names == ("MyKey", "$Forwarded")
    assert found.bit("mykey") == 1 << 5
    assert found.bit("$FORWARDED") == 1 << 6
    assert found.bit("other") is None
    assert found.bit("\\seen") == SEEN
    assert found.bit("\\Other") is None
    assert found.mask(["\\Deleted", "$forwarded", "other"]) == DELETED | 1 << 6
    assert found.flags(SEEN | 1 << 6 | 1 << 20) == ["\\Seen", "$Forwarded"]


def test_what_is_written_is_read(tmp_path):
    path = str(tmp_path / "dovecot-keywords")
    assert keywords.read(path) == Keywords()
    known = Keywords().including(["a", "$Junk"])
    keywords.write(path, known)
    with open(path, "rb") as file:
        assert file.read() == b"0 a\n1 $Junk\n"
    assert keywords.read(path) == known


def test_gaps_are_filled_and_stay_without_a_name(tmp_path):
    path = tmp_path / "dovecot-keywords"
    path.write_bytes(b"2 c\n0 a\n")
    found = keywords.read(str(path))
    assert found.names == ("a", "", "c")
    assert found.flags(1 << 6) == []
    assert found.including(["new", "more"]).names == ("a", "new", "c", "more")


def test_lines_that_make_no_sense_are_passed_over(tmp_path):
    path = tmp_path / "dovecot-keywords"
    path.write_bytes(b"x y\n\n26 far\n-1 z\n0 first\n0 second\n1 FIRST\n999999999999 n\n2\n3 last")
    assert keywords.read(str(path)).names == ("first", "", "", "last")


def test_a_name_that_is_no_atom_is_kept_and_not_shown(tmp_path):
    path = tmp_path / "dovecot-keywords"
    path.write_bytes(b"0 My label\n1 a\r\n2 ok\n3 \xff\n")
    found = keywords.read(str(path))
    assert found.names == ("", "", "ok")
    more = found.including(["x"])
    assert more.bit("x") == 1 << (5 + 4), "the letters of hidden names are not given anew"
    keywords.write(str(path), more)
    assert path.read_bytes() == b"0 My label\n1 a\r\n2 ok\n3 \xff\n4 x\n"


def test_the_501st_is_refused():
    known = Keywords().including([f"k{number}" for number in range(500)])
    assert known.including(["K3", "\\Seen"]) is known
    with pytest.raises(LimitReached, match="takes 500 keywords"):
        known.including(["one-more"])
    assert len(Keywords(known.names[:499]).including(["one-more"]).names) == 500


def test_keywords_beyond_the_letters_have_a_file_of_their_own(tmp_path):
    path, further = str(tmp_path / "dovecot-keywords"), str(tmp_path / "mailserver-keywords")
    letters = Keywords().including([f"k{number}" for number in range(26)])
    keywords.write(path, letters, further, before=Keywords())
    assert not os.path.exists(further)
    stat = os.stat(path)
    known = letters.including(["k26", "k27"])
    keywords.write(path, known, further, before=letters)
    assert os.stat(path).st_ino == stat.st_ino, "a file that does not change is not written"
    with open(further, "rb") as file:
        assert file.read() == b"26 k26\n27 k27\n"
    assert keywords.read(path, further) == known
    assert keywords.read(path) == letters


def test_further_lines_that_make_no_sense_are_passed_over(tmp_path):
    path, further = tmp_path / "dovecot-keywords", tmp_path / "mailserver-keywords"
    path.write_bytes(b"0 a\n")
    further.write_bytes(b"26 A\n27 ok\n27 again\n28 OK\n3 letter\n500 far\n-1 x\n29 not an atom\n\n1234 y\n\xff\n26")
    found = keywords.read(str(path), str(further))
    assert [(number, name) for number, name in enumerate(found.names) if name] == [(0, "a"), (27, "ok")]
    more = found.including([f"n{number}" for number in range(28)])
    assert more.names[26] == "", "the number of a hidden name is not given anew"
    assert more.names[28] == "n25"
    assert more.names[30] == "n26"


def test_numbers_that_no_message_has_are_freed_but_for_letters():
    known = Keywords().including([f"k{number}" for number in range(40)])
    left = known.without_unused(1 << 5 + 30)
    assert [name for name in left.names if name] == [*(f"k{number}" for number in range(26)), "k30"]
    assert left.including(["new"]).names[26] == "new"


@pytest.mark.parametrize("name", ["", "a b", "a\n1 b", "a(", "é", 'q"', "a]"])
def test_no_keyword_can_break_the_file(name):
    with pytest.raises(BadSyntax):
        Keywords().including([name])
