"""Dovecot's locks of several mailboxes: in one order, each once, and given back with what took them."""

import os

import pytest

from mailserver.store.maildir.format.uidlist import LOCK_NAME
from tests.store.maildirs import open_account


@pytest.fixture
def home(tmp_path):
    account = open_account(tmp_path)
    for name in ("a", "b"):
        account.create(name)
    with account._home.locked():
        yield account._home
    account.close()


def locked(home):
    return [name for name in ("a", "b") if os.path.lexists(os.path.join(home.paths(name).directory, LOCK_NAME))]


def test_what_is_held_is_not_taken_again_and_not_given_back_by_others(home):
    a, b = (home.paths(name).directory for name in ("a", "b"))
    with home.dotlocked([a]):
        with home.dotlocked([b, a]):
            assert locked(home) == ["a", "b"]
        assert locked(home) == ["a"]
    assert locked(home) == []


def test_they_are_taken_in_the_order_of_their_paths_or_none_is(home, monkeypatch):
    a, b = (home.paths(name).directory for name in ("a", "b"))
    taken = []
    take = home.dotlocks.take

    def noted(directory):
        taken.append(directory)
        take(directory)

    monkeypatch.setattr(home.dotlocks, "take", noted)
    with home.dotlocked([b, a]):
        assert taken == [a, b]
    with pytest.raises(FileNotFoundError), home.dotlocked([b + "-gone", a]):
        pass
    assert locked(home) == []
    assert not home.holds_dotlock(a)
