"""Of the contract: the lock of a POP3 session."""

from __future__ import annotations

import pytest

from mailserver.errors import InUse
from tests.store.samples import USER, message, staged, uids


class MaildropLocked:
    """Mixed into StoreContract."""

    def test_the_maildrop_is_locked_by_one_at_a_time_and_nothing_else_is_kept_out(self, store, account, three):
        other = store.account(USER)
        held = account.lock_maildrop()
        for each in (account, other):
            with pytest.raises(InUse):
                each.lock_maildrop()
        other.append("INBOX", [staged(other, message("four"))])
        assert len(uids(other.mailbox("INBOX"))) == 4
        account.close()
        with pytest.raises(InUse):
            other.lock_maildrop()
        held.release()
        again = other.lock_maildrop()
        held.release()
        with pytest.raises(InUse):
            account.lock_maildrop()
        again.release()
