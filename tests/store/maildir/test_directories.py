"""Directories are made, moved and removed durably, and links not followed."""

from __future__ import annotations

import os

from mailserver.store.maildir.disk import directories, safeio
from tests.store.power import Journal, cuts


def test_rename_tree_moves_all_below_durably(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "a/cur").mkdir(parents=True)
    (root / "a/cur/m").write_bytes(b"m")
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    directories.rename_tree(str(root / "a"), str(root / "b"))
    assert [sorted(found) for found in cuts(journal, tmp_path)] == [["a/cur/m"], ["a/cur/m"], ["b/cur/m"]]


def test_make_directories_is_durable_at_every_level(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    directories.make_directories(str(root / "x/y/z"))
    journal.leave(tmp_path / "cut")
    assert (tmp_path / "cut/x/y/z").is_dir()
    directories.make_directories(str(root / "x/y/z"))


def test_remove_tree_removes_links_and_not_what_they_point_to(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").write_bytes(b"")
    (tmp_path / "box/cur").mkdir(parents=True)
    (tmp_path / "box/cur/m").write_bytes(b"m")
    os.symlink(tmp_path / "outside", tmp_path / "box/link")
    os.mkfifo(tmp_path / "box/cur/fifo")
    directories.remove_tree(str(tmp_path / "box"))
    directories.remove_tree(str(tmp_path / "box"))
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert os.listdir(tmp_path / "outside") == ["keep"]
