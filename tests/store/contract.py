"""What every store must do, whatever it keeps mail in. Subclasses give `make_store`; each call opens the same mail.

Expectations are those of store/interfaces.py and of RFC 3501, 4315, 6851, 7162, 6154 and 3502; nothing here knows
how a store works.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mailserver.store.interfaces import Store
from tests.store.contract_bounds import BoundsKept
from tests.store.contract_maildrop import MaildropLocked
from tests.store.contract_messages import Messages
from tests.store.contract_names import Names
from tests.store.contract_quota import QuotaKept
from tests.store.contract_reading import Reading
from tests.store.samples import USER, message, staged, uids


class StoreContract(Names, Messages, Reading, BoundsKept, QuotaKept, MaildropLocked):
    """Inherit, name the class Test..., and give the fixture."""

    @pytest.fixture
    def make_store(self) -> Callable[..., Store]:
        """With `bounds=` or `quota_warnings=` it is a store of its own."""
        pytest.fail("the subclass gives it")

    @pytest.fixture
    def store(self, make_store):
        return make_store()

    @pytest.fixture
    def account(self, store):
        account = store.account(USER)
        yield account
        account.close()

    @pytest.fixture
    def inbox(self, account):
        return account.mailbox("INBOX")

    @pytest.fixture
    def three(self, account, inbox):
        """An INBOX with three messages."""
        appended = account.append("INBOX", [staged(account, message(word)) for word in ("one", "two", "three")])
        assert list(appended.uids) == uids(inbox)
        return list(appended.uids)
