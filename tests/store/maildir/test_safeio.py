from __future__ import annotations

import contextlib
import errno
import gc
import os
import weakref

import pytest

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir.disk import directories, safeio
from tests.store.power import Journal, cuts, tree


class Stop(BaseException):
    """The process dies here."""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()

    def start():
        journal = Journal(root)
        monkeypatch.setattr(safeio, "recorder", journal)
        return journal

    return root, start


def test_replace_leaves_the_old_or_the_new_file_after_any_cut(recorded, tmp_path):
    root, start = recorded
    (root / "file").write_bytes(b"old")
    journal = start()
    safeio.replace(str(root / "file"), b"new and longer")
    seen = [found["file"] for found in cuts(journal, tmp_path)]
    assert set(seen) == {b"old", b"new and longer"}
    assert seen[-1] == b"new and longer"


def test_replace_keeps_either_file_when_everything_unsynced_happens_to_survive(recorded, tmp_path):
    root, start = recorded
    (root / "file").write_bytes(b"old")
    journal = start()
    safeio.replace(str(root / "file"), b"new")
    for upto in range(len(journal.changes) + 1):
        target = tmp_path / f"cut{upto}"
        journal.leave(target, upto, survives=lambda _, change: change.operation == "rename")
        assert tree(target)["file"] in {b"old", b"new"}


@pytest.mark.parametrize("at", ["replace.before-rename", "replace.after-rename"])
def test_a_process_stopped_within_replace_leaves_a_whole_file(tmp_path, monkeypatch, at):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def hook(name):
        if name == at:
            raise Stop

    monkeypatch.setattr(safeio, "hook", hook)
    with pytest.raises(Stop):
        safeio.replace(str(path), b"new")
    assert path.read_bytes() == (b"old" if at == "replace.before-rename" else b"new")


def test_append_is_safe_when_it_returns_and_not_before(recorded, tmp_path):
    root, start = recorded
    (root / "list").write_bytes(b"1\n")
    journal = start()
    assert safeio.append(str(root / "list"), b"2\n") == 4
    assert [found["list"] for found in cuts(journal, tmp_path)] == [b"1\n", b"1\n", b"1\n2\n"]


def test_a_short_write_is_cut_off_again_and_refused(tmp_path, monkeypatch):
    path = tmp_path / "list"
    path.write_bytes(b"1 :a\n")
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    with pytest.raises(NoSpace):
        safeio.append(str(path), b"2 :bbb\n")
    assert path.read_bytes() == b"1 :a\n"


def test_an_append_whose_sync_fails_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "list"
    path.write_bytes(b"1 :a\n")

    def fail(_fd):
        raise OSError(errno.EIO, "io")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreUnavailable):
        safeio.append(str(path), b"2 :bbb\n")
    assert path.read_bytes() == b"1 :a\n"


def test_append_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        safeio.append(str(tmp_path / "none"), b"x\n")
    assert os.listdir(tmp_path) == []


def test_a_file_written_and_renamed_needs_both_syncs(recorded, tmp_path):
    root, start = recorded
    (root / "tmp").mkdir()
    (root / "new").mkdir()
    journal = start()
    fd = safeio.open_new(str(root / "tmp/a"))
    safeio.write(fd, b"message")
    safeio.sync(fd)
    os.close(fd)
    safeio.rename(str(root / "tmp/a"), str(root / "new/a"))
    safeio.sync_directory(str(root / "new"))
    seen = list(cuts(journal, tmp_path))
    assert seen[-1] == {"new/a": b"message"}
    assert all(found == {} for found in seen[:-1])


def test_a_cut_without_the_sync_of_the_file_leaves_an_empty_one(recorded, tmp_path):
    """The model itself: it must show what a forgotten fsync does."""
    root, start = recorded
    journal = start()
    fd = safeio.open_new(str(root / "a"))
    safeio.write(fd, b"message")
    os.close(fd)
    safeio.sync_directory(str(root))
    journal.leave(tmp_path / "cut")
    assert tree(tmp_path / "cut") == {"a": b""}


def test_a_move_between_directories_is_in_exactly_one_after_any_cut(recorded, tmp_path):
    root, start = recorded
    for name in ("a", "b"):
        (root / name).mkdir()
    (root / "a/m").write_bytes(b"m")
    journal = start()
    safeio.rename(str(root / "a/m"), str(root / "b/m"))
    safeio.sync_directory(str(root / "b"))
    safeio.sync_directory(str(root / "a"))
    assert [sorted(found) for found in cuts(journal, tmp_path)] == [["a/m"], ["a/m"], ["b/m"], ["b/m"]]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EFBIG, NoSpace), (errno.EIO, StoreUnavailable),
        (errno.EACCES, StoreUnavailable), (errno.EROFS, StoreUnavailable), (errno.EMFILE, StoreUnavailable),
        (errno.ENOENT, FileNotFoundError), (errno.EEXIST, FileExistsError),
    ],
)  # fmt: skip
def test_errors_of_the_system_become_answers(code, kind):
    with pytest.raises(kind), safeio.boundary():
        raise OSError(code, os.strerror(code))


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("/etc/passwd", tmp_path / "link")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "link", "directory"):
        with pytest.raises(StoreUnavailable):
            safeio.open_existing(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        safeio.open_existing(str(tmp_path / "none"))


@pytest.mark.parametrize("code", [errno.EMLINK, errno.EPERM, errno.EXDEV])
def test_link_copies_where_the_file_system_refuses_one(tmp_path, monkeypatch, code):
    (tmp_path / "a").write_bytes(b"message")
    os.utime(tmp_path / "a", ns=(1, 1_234_567_890_123_456_789))

    def refuse(*_arguments, **_keywords):
        raise OSError(code, "no")

    monkeypatch.setattr(os, "link", refuse)
    safeio.link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"message"
    assert (tmp_path / "b").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (tmp_path / "a").stat().st_ino != (tmp_path / "b").stat().st_ino


def test_link_gives_a_second_name(tmp_path):
    (tmp_path / "a").write_bytes(b"message")
    safeio.link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "b").stat().st_ino
    with pytest.raises(FileExistsError):
        safeio.link(str(tmp_path / "a"), str(tmp_path / "b"))


def test_a_replace_that_fails_leaves_no_temporary_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")

    def fail(_fd):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoSpace):
        safeio.replace(str(tmp_path / "file"), b"new")
    assert tree(tmp_path) == {"file": b"old"}


def test_each_sync_that_is_recorded_was_asked_of_the_system(tmp_path, monkeypatch):
    """The journal is only as true as this."""
    asked = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda fd, real=real: (asked.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1]
        )
    root = str(tmp_path)
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    safeio.replace(f"{root}/file", b"1\n")
    safeio.append(f"{root}/file", b"2\n")
    directories.make_directories(f"{root}/a/b")
    directories.rename_tree(f"{root}/a/b", f"{root}/b")
    safeio.copy(f"{root}/file", f"{root}/b/file")
    synced = [change.path for change in journal.changes if change.operation in {"sync", "sync_directory"}]
    assert synced == asked
    temporary = asked[0]
    assert asked == [
        temporary, root, f"{root}/file", root, f"{root}/a", root, f"{root}/a", f"{root}/b/file",
    ]  # fmt: skip


def test_the_journal_and_the_disk_agree_when_nothing_is_lost(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    (root / "tmp/before").write_bytes(b"before")
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    directories.make_directories(f"{root}/a/cur")
    safeio.replace(f"{root}/a/list", b"1\n2")
    fd = safeio.open_existing(f"{root}/a/list", os.O_RDWR)
    safeio.truncate(fd, 2)
    os.close(fd)
    safeio.append(f"{root}/a/list", b"3\n")
    safeio.link(f"{root}/tmp/before", f"{root}/a/cur/linked")
    safeio.rename(f"{root}/tmp/before", f"{root}/a/cur/moved")
    safeio.copy(f"{root}/a/cur/moved", f"{root}/copy")
    directories.mkdir(f"{root}/gone")
    directories.rmdir(f"{root}/gone")
    safeio.rename(f"{root}/a", f"{root}/b")
    safeio.unlink(f"{root}/copy")
    journal.leave(tmp_path / "all", survives=lambda _number, _change: True)
    assert tree(tmp_path / "all") == tree(root)
    assert {name for _, names, _ in os.walk(root) for name in names} == {"tmp", "b", "cur"}
    assert {name for _, names, _ in os.walk(tmp_path / "all") for name in names} == {"tmp", "b", "cur"}


def test_a_missing_file_keeps_nothing_of_its_caller(tmp_path):
    def unlink(value):
        with contextlib.suppress(FileNotFoundError):
            safeio.unlink(str(tmp_path / "missing"))
        return weakref.ref(value)

    gc.disable()
    try:
        kept = unlink(Stop())
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("number", sorted(safeio._ANSWERS))
def test_an_error_that_is_an_answer_has_the_same_class_number_and_names(number):
    error = OSError(number, os.strerror(number), "old", None, "new")
    found = safeio.failure(error)
    assert found is not error
    assert type(found) is type(error)
    assert (found.errno, found.filename, found.filename2) == (number, "old", "new")
