"""What a power cut leaves: a journal of changes made through safeio, and the disk as it would be found afterwards.

    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    ...
    journal.leave(target, upto=k)     # the tree under `root` as found after a cut right behind the first k changes

The model is as hard as POSIX allows, with one mercy that journaling file systems give: a rename between directories is
one step, safe once either directory is synced. File data are those of the last sync of the file; names are those of the
last sync of the directory. `survives` lets chosen un-synced changes reach the disk all the same, as they may.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from mailserver.store.maildir.safeio import Change


class _File:
    def __init__(self, data: bytes = b"", mtime: int | None = None) -> None:
        self.live = bytearray(data)
        self.safe = bytes(data)
        self.mtime = self.safe_mtime = mtime


class _Directory:
    def __init__(self) -> None:
        self.live: dict[str, _File | _Directory] = {}
        self.safe: dict[str, _File | _Directory] = {}


class Journal:
    """A `safeio.Recorder` for what happens below `root`."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.realpath(root)
        self.changes: list[Change] = []
        self._before: list[tuple[str, bytes | None, int]] = []
        for directory, subdirectories, files in os.walk(self.root):
            for name in subdirectories:
                self._before.append((os.path.join(directory, name), None, 0))
            for name in files:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        self._before.append((path, file.read(), os.stat(path).st_mtime_ns))

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
        """Write the tree to the (missing or empty) directory `target`."""
        disk = _Disk(self.root)
        for path, data, mtime in self._before:
            parent, name = disk.parent(path)
            node = _Directory() if data is None else _File(data, mtime)
            parent.live[name] = parent.safe[name] = node
        for number, change in enumerate(self.changes[:upto]):
            disk.apply(change, safe=survives(number, change))
        os.makedirs(target, exist_ok=True)
        _write(disk.top, os.fspath(target), {})


class _Disk:
    def __init__(self, root: str) -> None:
        self.root = root
        self.top = _Directory()
        self._moves: list[tuple[_Directory, str, _Directory, str, _File | _Directory]] = []

    def find(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self.top
        relative = os.path.relpath(os.path.abspath(path), self.root)
        for part in [] if relative == "." else relative.split("/"):
            assert isinstance(node, _Directory)
            node = node.live[part]
        return node

    def parent(self, path: str) -> tuple[_Directory, str]:
        node = self.find(os.path.dirname(path))
        assert isinstance(node, _Directory)
        return node, os.path.basename(path)

    def apply(self, change: Change, *, safe: bool) -> None:
        operation = change.operation
        if operation in {"write", "truncate", "utime", "sync"}:
            self._apply_to_file(change, safe=safe)
            return
        if operation == "sync_directory":
            directory = self.find(change.path)
            assert isinstance(directory, _Directory)
            self._settle(directory)
            return
        parent, name = self.parent(change.path)
        if operation in {"create", "mkdir"}:
            node = _File() if operation == "create" else _Directory()
            self._set(parent, name, node, safe=safe)
        elif operation in {"unlink", "rmdir"}:
            self._set(parent, name, None, safe=safe)
        elif operation == "link":
            other, other_name = self.parent(change.other)
            self._set(other, other_name, parent.live[name], safe=safe)
        elif operation == "rename":
            other, other_name = self.parent(change.other)
            node = parent.live[name]
            self._set(parent, name, None, safe=safe)
            self._set(other, other_name, node, safe=safe)
            if other is not parent and not safe:
                self._moves.append((parent, name, other, other_name, node))
        else:
            raise AssertionError(operation)

    def _apply_to_file(self, change: Change, *, safe: bool) -> None:
        node = self.find(change.path)
        assert isinstance(node, _File)
        if change.operation == "write":
            end = change.offset + len(change.data)
            node.live.extend(bytes(max(0, change.offset - len(node.live))))
            node.live[change.offset : end] = change.data
        elif change.operation == "truncate":
            del node.live[change.offset :]
        elif change.operation == "utime":
            node.mtime = change.offset
        if safe or change.operation == "sync":
            node.safe = bytes(node.live)
            node.safe_mtime = node.mtime

    def _set(self, directory: _Directory, name: str, node: _File | _Directory | None, *, safe: bool) -> None:
        for names in (directory.live, directory.safe) if safe else (directory.live,):
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node

    def _settle(self, directory: _Directory) -> None:
        waiting = []
        for move in self._moves:
            source, old, target, new, node = move
            if directory not in (source, target):
                waiting.append(move)
                continue
            if source.safe.get(old) is node:
                del source.safe[old]
            if target is not directory:
                target.safe[new] = node
        self._moves = waiting
        directory.safe = dict(directory.live)


def _write(node: _Directory, path: str, written: dict[int, str]) -> None:
    for name, child in node.safe.items():
        place = os.path.join(path, name)
        if isinstance(child, _Directory):
            os.mkdir(place)
            _write(child, place, written)
        elif id(child) in written:
            os.link(written[id(child)], place)
        else:
            with open(place, "wb") as file:
                file.write(child.safe)
            if child.safe_mtime is not None:
                os.utime(place, ns=(child.safe_mtime, child.safe_mtime))
            written[id(child)] = place
