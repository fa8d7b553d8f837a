"""The power goes at every change that a whole day of commands makes to the disk; what was not synced is gone.

The index is left absent, as of each earlier moment, or with its WAL torn: it is only a cache.
"""

from __future__ import annotations

import os

import pytest

from mailserver.store.maildir.disk.safeio import Change
from tests import sweeps
from tests.store.crash import run_workload
from tests.store.disk import scratch
from tests.store.power import Disk
from tests.store.powercut import violations
from tests.store.workload import STEPS, expectations


@pytest.fixture(scope="module")
def recorded():
    with scratch() as base:
        root = os.path.join(base, "mail")
        os.mkdir(root)
        log = run_workload(root, os.path.join(base, "log"), record=True)
        assert not log.error, log.error
        assert len(log.pictures) == len(log.marks) == len(log.indexes) == len(STEPS) + 1
        assert log.changes
        yield root, log


def test_what_was_recorded_is_what_happened(recorded, tmp_path):
    """Else a change goes past safeio, and no replay can be trusted."""
    root, log = recorded
    empty = str(tmp_path / "mail")
    os.mkdir(empty)
    disk = Disk(empty)
    disk.root = root
    disk.replay(log.changes)
    left = str(tmp_path / "left")
    disk.leave(left, "everything")
    assert tree(left) == tree(root)


def tree(root: str) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for directory, _names, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            # The index is SQLite's, locks and ballast are nobody's truth.
            if not any(word in name for word in ("index.sqlite", "lock", "ballast")):
                with open(path, "rb") as stream:
                    found[os.path.relpath(path, root)] = stream.read()
        found[os.path.relpath(directory, root) + "/"] = None
    return found


def test_power_cut_at_every_change(recorded):
    root, log = recorded
    with scratch() as base:
        empty = os.path.join(base, "empty")
        os.mkdir(empty)
        found = violations(
            log, root, empty, os.path.join(base, "scratch"), expectations(), STEPS, quick=not sweeps.WHOLE
        )
    assert not found, f"{len(found)} broken promises\n" + "\n".join(found)


# --- the disk itself


def left(tmp_path, kind, *changes: Change) -> dict[str, bytes | None]:
    base = tmp_path / "base"
    if not base.exists():
        base.mkdir()
        (base / "old").write_bytes(b"old")
        (base / "dir").mkdir()
    disk = Disk(str(base))
    disk.replay(Change(change.operation, str(base / change.path), str(base / change.other), change.offset, change.data) for change in changes)  # fmt: skip
    target = str(tmp_path / f"left-{kind}-{len(list(tmp_path.iterdir()))}")
    disk.leave(target, kind)
    return {name: data for name, data in tree(target).items() if name not in {"./", "dir/"}}


WRITE = (Change("create", "a"), Change("write", "a", data=b"1234"))
SYNC, SYNC_DIRECTORY = Change("sync", "a"), Change("sync_directory", ".")


@pytest.mark.parametrize(
    ("changes", "strict", "journal"),
    [
        (WRITE, {}, {"a": b""}),
        ((*WRITE, SYNC), {}, {"a": b"1234"}),
        ((*WRITE, SYNC_DIRECTORY), {"a": b""}, {"a": b""}),
        ((*WRITE, SYNC, SYNC_DIRECTORY), {"a": b"1234"}, {"a": b"1234"}),
        ((*WRITE, SYNC, Change("rename", "a", "dir/b")), {}, {"dir/b": b"1234"}),
        (
            (*WRITE, SYNC, SYNC_DIRECTORY, Change("rename", "a", "dir/b")),
            {"a": b"1234"},
            {"dir/b": b"1234"},
        ),
        (
            (*WRITE, SYNC, Change("rename", "a", "dir/b"), Change("sync_directory", "dir")),
            {"dir/b": b"1234"},
            {"dir/b": b"1234"},
        ),
        (
            (*WRITE, SYNC, SYNC_DIRECTORY, Change("rename", "a", "dir/b"), SYNC_DIRECTORY),
            {"dir/b": b"1234"},
            {"dir/b": b"1234"},
        ),
    ],
)
def test_the_disk_forgets(tmp_path, changes, strict, journal):
    assert left(tmp_path, "strict", *changes) == {"old": b"old", **strict}
    assert left(tmp_path, "journal", *changes) == {"old": b"old", **journal}


def test_the_disk_forgets_unsynced_removals_links_and_overwriting(tmp_path):
    assert left(tmp_path, "strict", Change("unlink", "old")) == {"old": b"old"}
    assert left(tmp_path, "strict", Change("unlink", "old"), SYNC_DIRECTORY) == {}
    assert left(tmp_path, "strict", Change("link", "old", "dir/x")) == {"old": b"old"}
    assert left(tmp_path, "strict", Change("link", "old", "dir/x"), Change("sync_directory", "dir")) == {
        "old": b"old",
        "dir/x": b"old",
    }
    append = Change("write", "old", offset=3, data=b"+new")
    assert left(tmp_path, "strict", append) == {"old": b"old"}
    assert left(tmp_path, "strict", append, Change("sync", "old")) == {"old": b"old+new"}
    assert left(tmp_path, "everything", append, Change("truncate", "old", offset=4)) == {"old": b"old+"}


def test_what_is_in_a_directory_goes_with_it(tmp_path):
    inside = (
        Change("mkdir", "new"),
        Change("create", "new/f"),
        Change("sync", "new/f"),
        Change("sync_directory", "new"),
    )
    assert left(tmp_path, "strict", *inside) == {"old": b"old"}
    assert left(tmp_path, "strict", *inside, SYNC_DIRECTORY) == {"old": b"old", "new/": None, "new/f": b""}
