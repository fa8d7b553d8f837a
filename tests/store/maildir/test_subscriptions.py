from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.maildir.format import subscriptions
from mailserver.store.maildir.format.names import LevelEncoding

LEVEL = st.text(st.characters(blacklist_characters="/", blacklist_categories=["Cs"]), min_size=1, max_size=8)


def test_a_file_of_dovecot(tmp_path):
    (tmp_path / "subscriptions").write_bytes(b"V\t2\n\nINBOX\nFoo\tBar\nEntw&APw-rfe\nGhost\tX\n")
    assert subscriptions.read(str(tmp_path)) == {"INBOX", "Foo/Bar", "Entwürfe", "Ghost/X"}


def test_the_old_format(tmp_path):
    (tmp_path / "subscriptions").write_bytes(b"INBOX\nFoo.Bar\nEntw&APw-rfe\nA&B\n")
    assert subscriptions.read(str(tmp_path)) == {"INBOX", "Foo/Bar", "Entwürfe", "A&B"}


def test_names_on_disk_in_utf_8(tmp_path):
    (tmp_path / "subscriptions").write_bytes("V\t2\n\nEntwürfe\nA&B\n".encode())
    assert subscriptions.read(str(tmp_path), LevelEncoding(utf8=True)) == {"Entwürfe", "A&B"}


def test_no_file_and_damage(tmp_path):
    assert subscriptions.read(str(tmp_path)) == frozenset()
    (tmp_path / "subscriptions").write_bytes(b"V\t2\n\n\xff\xfe\n\nINBOX")
    assert "INBOX" in subscriptions.read(str(tmp_path))


def test_what_is_written_is_dovecots_format(tmp_path):
    subscriptions.write(str(tmp_path), {"INBOX", "Foo/Bar", "Entwürfe"})
    assert (tmp_path / "subscriptions").read_bytes() == b"V\t2\n\nEntw&APw-rfe\nFoo\tBar\nINBOX\n"


@settings(max_examples=60, deadline=None)
@given(st.frozensets(st.lists(LEVEL, min_size=1, max_size=3).map("/".join), max_size=6), st.booleans())
def test_any_names_come_back(tmp_path_factory, names, utf8):
    root = str(tmp_path_factory.mktemp("root"))
    subscriptions.write(root, names, LevelEncoding(utf8=utf8))
    assert subscriptions.read(root, LevelEncoding(utf8=utf8)) == names
