"""A changing operation whose result cannot be read afterwards."""

from __future__ import annotations

import pytest

from mailserver.errors import InUse, MailboxChanged, StoreUnavailable
from mailserver.store.flags import SEEN, FlagChange
from mailserver.store.memory import MemoryMailbox
from mailserver.store.rows import MANY_CHANGES as MANY
from tests.store.live.world import USER, World, pokes
from tests.store.samples import message, staged


@pytest.mark.parametrize("error", [InUse, StoreUnavailable, MailboxChanged])
def test_what_is_done_is_answered_as_done_though_it_cannot_be_read(monkeypatch, error):
    world = World()
    memory = world.store.account(USER)
    memory.append("INBOX", [staged(memory, message(str(n))) for n in range(3)])
    account = world.account()
    live = world.do(account.select("INBOX"))
    poked, poke = pokes()
    view = live.open_view(poke)
    read = MemoryMailbox.changes_since
    asked = []

    def once(self, modseq):
        asked.append(modseq)
        if len(asked) == 2:
            raise error
        return read(self, modseq)

    monkeypatch.setattr(MemoryMailbox, "changes_since", once)
    assert world.do(live.change(lambda mailbox: mailbox.expunge([2], only_deleted=False))) == [2]
    assert len(asked) == 2
    assert live.stale
    assert poked
    assert world.told == [(USER, live.id)]
    assert list(live.columns.uids) == [1, 2, 3]

    world.do(live.refresh())
    assert list(view.sync(allow_expunge=True).expunged) == [(2, 2)]

    # Nothing of it is taken for what the next command itself has done.
    del asked[:]
    stored = world.do(live.change(lambda mailbox: mailbox.store_flags([1], FlagChange.ADD, ["\\Seen"])))
    assert stored.modified == []
    view.silence([1])
    world.do(live.refresh())
    assert live.columns.flags[0] == SEEN


def test_a_change_of_many_messages_is_not_watched(monkeypatch):
    world = World()
    memory = world.store.account(USER)
    memory.append("INBOX", [staged(memory, message(str(n))) for n in range(MANY)])
    account = world.account()
    live = world.do(account.select("INBOX"))
    told = []
    monkeypatch.setattr(world.accounts, "pause", lambda mailbox: told.append(("pause", mailbox)))
    monkeypatch.setattr(world.accounts, "resume", lambda mailbox: told.append(("resume", mailbox)))
    world.do(live.change(lambda mailbox: mailbox.expunge([1], only_deleted=False), MANY - 1))
    assert told == []
    world.do(live.change(lambda mailbox: told.append("change") or mailbox.load(), MANY))
    assert told == [("pause", live), "change", ("resume", live)]
    told.clear()

    def fail(_mailbox):
        raise InUse

    with pytest.raises(InUse):
        world.do(live.change(fail, MANY))
    assert told == [("pause", live), ("resume", live)]
