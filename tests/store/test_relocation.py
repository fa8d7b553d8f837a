"""An account that is moved as a whole: nothing is lost, whenever it is broken off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.errors import MailError, StoreUnavailable
from mailserver.message.render import summarise
from mailserver.store.maildir.account import relocation
from mailserver.store.maildir.account.account import is_account
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import safeio
from tests.store.failing import Recorder


@pytest.fixture
def store(tmp_path: Path) -> MaildirStore:
    return MaildirStore(tmp_path, summarise)


@pytest.fixture(params=["exchanged", "renamed"])
def source(request: pytest.FixtureRequest, store: MaildirStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Maildir of anna; on a file system that exchanges names, and on one that does not."""
    if request.param == "renamed":
        monkeypatch.setattr(relocation, "_swap", lambda _one, _other: False)
    store.account("anna@example.test").close()
    return Path(store.path("anna@example.test"))


def test_it_moves_and_leaves_the_marker(store: MaildirStore, source: Path) -> None:
    target = store.path("ben@example.test")
    before = sorted(os.listdir(source))
    assert store.move("anna@example.test", None, target)
    assert set(before) <= set(os.listdir(target))
    assert relocation.is_marker(str(source))
    with pytest.raises(MailError):
        store.account("anna@example.test")
    assert relocation.is_marker(str(source)), "no new account has taken its place"
    assert os.listdir(source.parent) == ["Maildir"], "nothing is left of the attempt"
    assert store.move("anna@example.test", None, target), "given again, it is done already"
    relocation.remove_marker(str(source))
    assert not source.parent.exists()
    assert is_account(target)


def test_a_marker_of_a_move_that_never_came_is_used(store: MaildirStore, source: Path) -> None:
    target = store.path("ben@example.test")
    os.makedirs(os.path.dirname(target))
    Path(target).write_bytes(b"mailserver is moving this account\n")
    assert store.move("anna@example.test", None, target)
    assert is_account(target)
    assert relocation.is_marker(str(source))


def test_the_marker_is_safe_on_the_disk(store: MaildirStore, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(safeio, "recorder", recorder)
    assert store.move("anna@example.test", None, store.path("ben@example.test"))
    written = [change for change in recorder.changes if change.operation == "write" and b"moving" in change.data]
    assert written
    for change in written:
        assert any(later.operation == "sync" and later.path == change.path for later in recorder.changes)


@pytest.mark.parametrize("length", [0, 10])
def test_half_a_marker_that_a_kill_has_left_is_one(store: MaildirStore, source: Path, length: int) -> None:
    target = store.path("ben@example.test")
    os.makedirs(os.path.dirname(target))
    Path(target).write_bytes(b"mailserver is moving this account\n"[:length])
    assert store.move("anna@example.test", None, target)
    assert is_account(target)


def test_an_exchange_that_the_disk_refuses_leaves_no_marker(
    store: MaildirStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_one: str, _other: str) -> bool:
        raise StoreUnavailable

    target = store.path("ben@example.test")
    monkeypatch.setattr(relocation, "_swap", refuse)
    with pytest.raises(StoreUnavailable):
        store.move("anna@example.test", None, target)
    assert not os.path.lexists(target)
    assert is_account(str(source))


def test_nothing_is_moved_over_anything(store: MaildirStore, source: Path) -> None:
    store.account("ben@example.test").close()
    with pytest.raises(relocation.PlaceTaken):
        store.move("anna@example.test", None, store.path("ben@example.test"))
    assert is_account(str(source))


def test_who_has_no_mail_moves_nothing(store: MaildirStore, tmp_path: Path) -> None:
    assert not store.move("carla@example.test", None, str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_who_has_no_mail_takes_over_nobody_elses(store: MaildirStore, source: Path) -> None:
    with pytest.raises(relocation.PlaceTaken):
        store.move("carla@example.test", None, str(source))
    assert is_account(str(source))


def test_places_aside_bear_the_date_and_are_free(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    first = relocation.aside(str(tmp_path / "Maildir"), now)
    assert first.endswith("/Maildir.deleted-2023-11-14")
    os.mkdir(first)
    assert relocation.aside(str(tmp_path / "Maildir"), now) == first + "-2"


def test_an_account_that_was_moved_away_says_so(store: MaildirStore, source: Path, tmp_path: Path) -> None:
    account = store.account("anna@example.test")
    assert account.is_there
    source.rename(tmp_path / "elsewhere")
    assert not account.is_there
    account.close()
