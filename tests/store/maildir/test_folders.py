from __future__ import annotations

import os

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailserver.errors import BadMailboxName, MailboxExists, NoSuchMailbox
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.names import LevelEncoding
from mailserver.store.maildir.home import folders, intent
from mailserver.store.maildir.home.folders import Layout
from tests.store.power import Journal


class Stop(BaseException):
    """The process dies here."""


@pytest.fixture
def layout(tmp_path):
    made = Layout(str(tmp_path / "Maildir"))
    made.create("INBOX", 5)
    return made


def test_paths(layout):
    root = layout.root
    assert layout.path("INBOX") == layout.path("inBOX") == root
    assert layout.path("A/B") == os.path.join(root, ".A.B")
    assert layout.path("Entwürfe") == os.path.join(root, ".Entw&APw-rfe")
    assert layout.path("inbox/sub") == os.path.join(root, ".INBOX.sub")
    assert Layout(root, LevelEncoding(utf8=True)).path("Entwürfe/A&B") == os.path.join(root, ".Entwürfe.A&B")


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", ".", "..", "../x", "a/../b", "a.b", "a/.", "a\0b", "a\nb", "\x7f", "\x85", "\u2028",
     "\udc80", "\uffff", "~x", "~", "x" * 255, "é" * 100, "/".join(["a"] * 33), "INBOX/", "a/" * 3],
)  # fmt: skip
@pytest.mark.parametrize("utf8", [False, True])
def test_names_that_no_mailbox_can_have(tmp_path, name, utf8):
    if utf8 and name == "é" * 100:
        name = "é" * 128
    with pytest.raises(BadMailboxName):
        Layout(str(tmp_path), LevelEncoding(utf8=utf8)).path(name)


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(), max_size=6), min_size=1, max_size=3).map("/".join), st.booleans())
def test_a_name_leads_to_one_directory_below_the_root_and_back(name, utf8):
    layout = Layout("/root/of", LevelEncoding(utf8=utf8))
    try:
        path = layout.path(name)
    except BadMailboxName:
        return
    if path == layout.root:
        assert name.upper() == "INBOX"
        return
    assert os.path.dirname(os.path.normpath(path)) == layout.root
    assert os.path.basename(path) not in {".", ".."}
    assert layout.name(os.path.basename(path)) == folders.canonical(name)


ENCODINGS = st.builds(LevelEncoding, st.booleans(), st.sampled_from("%^+&\\-"), st.booleans())


@settings(max_examples=300)
@given(st.lists(st.text("a.~%^+&-é2eI\x1f\0/", max_size=6), min_size=1, max_size=3).map("/".join), ENCODINGS)
def test_an_escaped_name_leads_to_one_directory_below_the_root_and_back(name, encoding):
    layout = Layout("/root/of", encoding)
    try:
        path = layout.path(name)
    except BadMailboxName:
        return
    assert os.path.dirname(os.path.normpath(path)) == layout.root
    assert layout.name(os.path.basename(path)) == folders.canonical(name)


@settings(max_examples=300)
@given(st.text("&-.%257eEfFaé~^/", max_size=10), ENCODINGS)
def test_an_escaped_directory_is_known_only_by_the_name_that_leads_back(text, encoding):
    layout = Layout("/root/of", encoding)
    name = layout.name("." + text)
    assume(name is not None)
    assert layout.path(name) == "/root/of/." + text


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("Projekt v1.2", ".Projekt v1%2e2"),
        ("~x/~y~", ".%7ex.%7ey~"),
        ("..", ".%2e%2e"),
        ("a/.", ".a.%2e"),
        ("50%", ".50%25"),
        ("a%2eb", ".a%252eb"),
        ("T\u00fcr.1", ".T&APw-r%2e1"),
        (None, ".a%2Eb"),
        (None, ".a%b"),
        (None, ".a%2fb"),
        (None, ".a.~b"),
        (None, ".%49NBOX"),
        (None, ".a%00b"),
    ],
)
def test_names_with_an_escape_character(name, directory):
    layout = Layout("/root/of", LevelEncoding(escape="%"))
    assert layout.name(directory) == name
    if name is not None:
        assert layout.directory_name(name) == directory


@settings(max_examples=200)
@given(st.text("&-.AaIiNnBbOoXxé~\0/", max_size=10), st.booleans())
def test_a_directory_is_known_only_by_the_name_that_leads_back(text, utf8):
    layout = Layout("/root/of", LevelEncoding(utf8=utf8))
    name = layout.name("." + text)
    assume(name is not None)
    assert layout.path(name) == "/root/of/." + text


def test_the_tree(layout, tmp_path):
    for name in ("Sent", "A/B", "Entwürfe"):
        layout.create(name, 5)
    root = layout.root
    for name in (".no-cur", ".A&B", ".INBOX", ".a..b", ".inbox.x", "plain"):
        os.mkdir(os.path.join(root, name))
    for name in (".A&B", ".INBOX", ".a..b", ".inbox.x", "plain"):
        os.mkdir(os.path.join(root, name, "cur"))
    with open(os.path.join(root, ".file"), "w"):
        pass
    (tmp_path / "outside/cur").mkdir(parents=True)
    os.symlink(tmp_path / "outside", os.path.join(root, ".link"))
    os.symlink(os.path.join(root, ".Sent"), os.path.join(root, ".twin"))
    os.mkdir(os.path.join(root, ".linkcur"))
    os.symlink(tmp_path / "outside/cur", os.path.join(root, ".linkcur/cur"))
    assert layout.mailboxes() == ["INBOX", "A/B", "Entwürfe", "Sent"]
    assert not any(layout.exists(name) for name in ("link", "twin", "linkcur", "no-cur", "file"))
    assert layout.exists("sent") is False
    assert layout.exists("inbox")


def test_an_account_may_lie_behind_a_link(layout, tmp_path):
    layout.create("A", 1)
    os.symlink(layout.root, tmp_path / "moved")
    moved = Layout(str(tmp_path / "moved"))
    assert moved.mailboxes() == ["INBOX", "A"]
    assert moved.path("A") == layout.path("A")


def test_a_new_mailbox_is_whole(layout):
    path = layout.create("A/B", 77, b"0123456789abcdef")
    assert sorted(os.listdir(path)) == ["cur", "dovecot-uidlist", "maildirfolder", "new", "tmp"]
    made = uidlist.read(os.path.join(path, "dovecot-uidlist"))
    assert (made.uid_validity, made.guid, made.damaged) == (77, b"0123456789abcdef", False)
    with pytest.raises(MailboxExists):
        layout.create("A/B", 78)
    with pytest.raises(MailboxExists):
        layout.create("Inbox", 78)


def test_something_else_in_the_way_is_left_alone(layout):
    os.mkdir(os.path.join(layout.root, ".X"))
    with open(os.path.join(layout.root, ".X/precious"), "w"):
        pass
    with open(os.path.join(layout.root, ".Y"), "w"):
        pass
    for name in ("X", "Y"):
        with pytest.raises(BadMailboxName):
            layout.create(name, 1)
    assert sorted(name for name in os.listdir(layout.root) if name.startswith("mailserver")) == []
    assert os.listdir(os.path.join(layout.root, ".X")) == ["precious"]


def test_create_is_whole_or_not_at_all_after_any_cut(layout, tmp_path, monkeypatch):
    journal = Journal(layout.root)
    monkeypatch.setattr(safeio, "recorder", journal)
    layout.create("A", 77)
    monkeypatch.setattr(safeio, "recorder", None)
    seen = []
    for upto in range(len(journal.changes) + 1):
        left = Layout(str(tmp_path / f"cut{upto}"))
        journal.leave(left.root, upto)
        seen.append(left.exists("A"))
        if left.exists("A"):
            assert uidlist.read(os.path.join(left.path("A"), "dovecot-uidlist")).uid_validity == 77
            assert {"cur", "new", "tmp"} <= set(os.listdir(left.path("A")))
        left.sweep()
        assert not any(name.startswith("mailserver-new") for name in os.listdir(left.root))
    assert seen[-1]
    assert not seen[0]


def test_an_interrupted_create_is_swept(layout, monkeypatch):
    def hook(name):
        if name == "create.before-rename":
            os._exit(7)

    if (child := os.fork()) == 0:
        safeio.hook = hook
        layout.create("A", 77)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert layout.mailboxes() == ["INBOX"]
    assert layout.sweep() == 1
    assert sorted(os.listdir(layout.root)) == ["cur", "dovecot-uidlist", "new", "tmp"]


def test_retire_takes_a_mailbox_out_of_the_tree_at_once(layout):
    layout.create("A", 1)
    layout.create("A/B", 1)
    where = layout.retire("A")
    assert layout.mailboxes() == ["INBOX", "A/B"]
    assert os.path.isdir(os.path.join(where, "cur"))
    assert layout.sweep() == 1
    for name in ("A", "INBOX"):
        with pytest.raises(NoSuchMailbox):
            layout.retire(name)
    layout.create("A", 2)


def test_sweep_removes_temporary_files_and_nothing_else(layout):
    layout.create("A", 1)
    keep = ["dovecot-uidlist.lock", "dovecot.index.log", "notes.tmp", "dovecot-keywords"]
    left = ["dovecot-uidlist.4711.3.tmp", "dovecot-uidlist.lock.host.example.test.99.0123456789abcdef"]
    for name in keep + left:
        with open(os.path.join(layout.path("A"), name), "w"):
            pass
    made = intent.write(layout.root, intent.Intent("copy", {}))
    with open(os.path.join(layout.root, "mailserver-intents", f"{made.id}.json.4711.0.tmp"), "w"):
        pass
    assert layout.sweep() == 3
    assert intent.read_all(layout.root) == [made]
    assert set(keep) <= set(os.listdir(layout.path("A")))
    assert not set(left) & set(os.listdir(layout.path("A")))


def test_missing_directories_of_a_mailbox_are_made(layout):
    path = layout.create("A", 1)
    os.rmdir(os.path.join(path, "new"))
    os.rmdir(os.path.join(path, "tmp"))
    folders.complete(path)
    assert {"cur", "new", "tmp"} <= set(os.listdir(path))
    with pytest.raises(FileNotFoundError):
        folders.complete(os.path.join(layout.root, ".none"))
