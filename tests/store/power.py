"""A disk that forgets: replays recorded changes and says what a power cut leaves of them.

Names and data are kept apart, as file systems do. A file's data are safe once the file was synced, a name once a
directory that holds it was synced; a rename touches two directories and is made by the journal in one go, so syncing
either keeps all of it. Three disks bound what real ones do:

*   `strict`: nothing is kept that was not synced.
*   `journal`: every change of names is kept in order, data only where synced (a file renamed before it was synced is
    then empty).
*   `torn`: as `journal`, but of what was added to a file without a sync the first half is there.

A file whose sync failed ("lost") has lost what was not safe: the kernel takes those pages for written, so that a later sync
keeps nothing of them, until they are written anew or cut off. A directory's sync can be tried again.

`everything` is what a killed process leaves. `Journal` records what a test does, and lets chosen changes reach a strict
disk all the same, as they may.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import define, field

from mailserver.store.maildir.disk.recorder import Change

Kind = Literal["strict", "journal", "torn", "everything"]


@define(eq=False)
class File:
    """Data now, and as last synced."""

    data: bytes = b""
    safe: bytes = b""
    mtime: int | None = None
    safe_mtime: int | None = None
    dropped: int | None = None
    """The octet from which on a failed sync has left the data unwritten, and nobody will write them."""


@define(eq=False)
class Directory:
    """Names now, and as last synced."""

    names: dict[str, File | Directory] = field(factory=dict)
    safe: dict[str, File | Directory] = field(factory=dict)
    pending: list[_NameChange] = field(factory=list)
    """Changes of names here since the last sync, in order."""


@define(eq=False)
class _NameChange:
    """Entries to set (or to drop, with None) in one or two directories."""

    entries: list[tuple[Directory, str, File | Directory | None]]
    kept: bool = False

    def keep(self) -> None:
        if not self.kept:
            self.kept = True
            for directory, name, node in self.entries:
                if node is None:
                    directory.safe.pop(name, None)
                else:
                    directory.safe[name] = node


class Disk:
    """A tree that starts as it is under `root`, all of it safe."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.top = _read_tree(root)

    def replay(self, changes: Iterable[Change]) -> None:
        """Carry out recorded changes (safeio.Change)."""
        for change in changes:
            self.apply(change)

    def apply(self, change: Change, *, survives: bool = False) -> None:
        """One change; if it `survives`, as if it had been synced by itself."""
        operation: str = change.operation
        path: str = change.path
        other: str = change.other
        if operation == "sync_directory":
            directory = self._node(path)
            assert isinstance(directory, Directory)
            for pending in directory.pending:
                pending.keep()
            directory.pending.clear()
        elif operation in {"create", "mkdir"}:
            self._set(path, File() if operation == "create" else Directory())
        elif operation in {"unlink", "rmdir"}:
            self._set(path, None)
        elif operation == "link":
            self._set(other, self._node(path))
        elif operation == "rename":
            node = self._node(path)
            old, new = self._parent(path), self._parent(other)
            change_ = _NameChange([(new[0], new[1], node), (old[0], old[1], None)])
            old[0].names.pop(old[1], None)
            new[0].names[new[1]] = node
            old[0].pending.append(change_)
            if new[0] is not old[0]:
                new[0].pending.append(change_)
        else:
            self._apply_to_file(change, survives=survives)
            return
        if survives and operation != "sync_directory":
            self._parent(other or path)[0].pending[-1].keep()

    def _apply_to_file(self, change: Change, *, survives: bool) -> None:
        operation: str = change.operation
        path: str = change.path
        offset: int = change.offset
        data: bytes = change.data
        file = self._node(path)
        assert isinstance(file, File), path
        if operation == "write":
            file.data = file.data[:offset].ljust(offset, b"\0") + data + file.data[offset + len(data) :]
            if file.dropped is not None and offset <= file.dropped and offset + len(data) >= len(file.data):
                file.dropped = None
        elif operation == "truncate":
            file.data = file.data[:offset]
            if file.dropped is not None and offset <= file.dropped:
                file.dropped = None
        elif operation == "lost":
            if file.data != file.safe:
                pairs = enumerate(zip(file.data, file.safe, strict=False))
                file.dropped = next(
                    (at for at, (now, safe) in pairs if now != safe), min(len(file.data), len(file.safe))
                )
        elif operation == "utime":
            file.mtime = offset
        elif operation != "sync":
            raise ValueError(operation)
        if survives or operation == "sync":
            safe = file.data if file.dropped is None else file.data[: file.dropped].ljust(len(file.data), b"\0")
            file.safe, file.safe_mtime = safe, file.mtime

    def leave(self, target: str, kind: Kind) -> None:
        """Write what is left to a new or empty directory."""
        os.makedirs(target, exist_ok=True)
        _write_tree(self.top, target, kind)

    def _node(self, path: str) -> File | Directory:
        node: File | Directory = self.top
        for part in self._parts(path):
            assert isinstance(node, Directory)
            node = node.names[part]
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        *above, name = self._parts(path)
        node = self._node(os.path.join(self.root, *above))
        assert isinstance(node, Directory)
        return node, name

    def _parts(self, path: str) -> Sequence[str]:
        relative = os.path.relpath(path, self.root)
        assert not relative.startswith(".."), f"{path} is outside"
        return [] if relative == "." else relative.split(os.sep)

    def _set(self, path: str, node: File | Directory | None) -> None:
        directory, name = self._parent(path)
        if node is None:
            del directory.names[name]
        else:
            assert name not in directory.names, f"{path} exists"
            directory.names[name] = node
        directory.pending.append(_NameChange([(directory, name, node)]))


class Journal:
    """A `safeio.Recorder` for what happens below `root` from now on.

    monkeypatch.setattr(safeio, "recorder", journal)
    ...
    journal.leave(target, upto=k)     # the tree as found after a cut right behind the first k changes
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.realpath(root)
        self.changes: list[Change] = []
        self._before = Disk(self.root)

    def record(self, change: Change) -> None:
        """Called by safeio."""
        path = os.path.abspath(change.path)
        if path == self.root or path.startswith(self.root + "/"):
            self.changes.append(change)

    def leave(
        self,
        target: str | os.PathLike[str],
        upto: int | None = None,
        survives: Callable[[int, Change], bool] = lambda _number, _change: False,
    ) -> None:
        """Write what a strict disk keeps, and what survives by chance."""
        disk = copy.deepcopy(self._before)
        for number, change in enumerate(self.changes[:upto]):
            disk.apply(change, survives=survives(number, change))
        disk.leave(os.fspath(target), "strict")


def _read_tree(path: str) -> Directory:
    directory = Directory()
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            directory.names[entry.name] = _read_tree(entry.path)
        elif entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb") as stream:
                data = stream.read()
            mtime = entry.stat().st_mtime_ns
            directory.names[entry.name] = File(data, data, mtime, mtime)
    directory.safe = dict(directory.names)
    return directory


def _write_tree(directory: Directory, target: str, kind: Kind) -> None:
    for name, node in (directory.safe if kind == "strict" else directory.names).items():
        path = os.path.join(target, name)
        if name.endswith(".lock"):
            # Older than the start of the machine, which a test cannot give a file: left away.
            continue
        if isinstance(node, Directory):
            os.mkdir(path)
            _write_tree(node, path, kind)
            continue
        data, mtime = (node.data, node.mtime) if kind == "everything" else (node.safe, node.safe_mtime)
        if kind == "torn" and node.data.startswith(node.safe):
            data = node.data[: (len(node.safe) + len(node.data)) // 2]
        with open(path, "wb") as stream:
            stream.write(data)
        if mtime is not None:
            os.utime(path, ns=(mtime, mtime))


def tree(root: Any) -> dict[str, bytes]:
    """What its files have in them, by path."""
    found = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


def cuts(journal: Any, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """The files that a power cut leaves, one after each change."""
    for upto in range(len(journal.changes) + 1):
        target = tmp_path / f"cut{upto}"
        journal.leave(target, upto)
        yield tree(target)
