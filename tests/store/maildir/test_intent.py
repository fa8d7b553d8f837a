from __future__ import annotations

import os

from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.home import intent
from mailserver.store.maildir.home.intent import Intent
from tests.store.power import Journal


def test_intents_come_back_oldest_first(tmp_path):
    root = str(tmp_path)
    assert intent.read_all(root) == []
    first = intent.write(root, Intent("copy", {"names": ["a", os.fsdecode(b"\xff")]}))
    second = intent.write(root, Intent("rename", {"old": "A", "new": "B"}))
    assert intent.read_all(root) == [first, second]
    assert os.fsencode(intent.read_all(root)[0].payload["names"][1]) == b"\xff"
    intent.clear(root, first)
    intent.clear(root, first)
    assert intent.read_all(root) == [second]


def test_an_intent_can_be_replaced(tmp_path):
    root = str(tmp_path)
    first = intent.write(root, Intent("move", {"done": 0}))
    intent.write(root, Intent("move", {"done": 1}, first.id))
    assert [found.payload for found in intent.read_all(root)] == [{"done": 1}]


def test_it_is_there_when_write_returns_and_gone_when_clear_does(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    journal = Journal(root)
    monkeypatch.setattr(safeio, "recorder", journal)
    made = intent.write(str(root), Intent("copy", {"a": 1}))
    written = len(journal.changes)
    intent.clear(str(root), made)
    monkeypatch.setattr(safeio, "recorder", None)
    seen = []
    for upto in range(len(journal.changes) + 1):
        journal.leave(tmp_path / f"cut{upto}", upto)
        found = intent.read_all(str(tmp_path / f"cut{upto}"))
        assert found in ([], [made])
        seen.append(bool(found))
    assert seen[written]
    assert not seen[0]
    assert not seen[-1]


def test_what_is_no_intent_is_put_aside(tmp_path):
    root = str(tmp_path)
    made = intent.write(root, Intent("copy", {}))
    directory = tmp_path / intent.DIRECTORY
    for number, text in enumerate([b"", b"{", b"[]", b'{"kind": "x"}', b'{"kind": "x", "payload": 3}', b"\xff"]):
        (directory / f"0{number}.json").write_bytes(text)
    assert intent.read_all(root) == [made]
    assert sum(name.endswith(".bad") for name in os.listdir(directory)) == 6
