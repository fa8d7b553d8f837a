"""Limits of a session's user: the present ones hold, however old the session is."""

from __future__ import annotations

from typing import Any

from mailserver.auth.interfaces import User
from mailserver.auth.limits import Limits
from mailserver.errors import AuthUnavailable
from mailserver.session.quotas import UserQuotas
from mailserver.types import UNLIMITED, Quota
from tests.fakes import Client, FakeAuthenticator, run_now
from tests.imap.sessions import logged_in, put, selected, services


class Users(FakeAuthenticator):
    """Users with limits that change."""

    quota = Quota()
    looked_up = 0

    async def find(self, address: str) -> User | None:
        self.looked_up += 1
        found = await super().find(address)
        return None if found is None else User(found.name, limits=Limits(quota=self.quota))


def refused(client: Client) -> bool:
    return client.ask(b"a APPEND INBOX {3+}\r\na:b\r\n").startswith(b"a NO [OVERQUOTA]")


def site(**quotas: Any) -> tuple[Users, Client]:
    users = Users()
    return users, logged_in(services(authenticator=users, quotas=UserQuotas(**quotas)))


def test_a_changed_limit_holds_after_a_second() -> None:
    users, client = site()
    assert not refused(client)
    users.quota = Quota(messages=1)
    client.wait(1.5)
    assert refused(client)
    assert b'* QUOTA "User quota" (MESSAGE 1 1)' in client.ask(b'a GETQUOTA "User quota"\r\n')
    users.quota = Quota(messages=2)
    client.wait(1.5)
    assert not refused(client)


def test_the_last_limits_hold_while_users_cannot_be_looked_up() -> None:
    users, client = site()
    users.quota = Quota(messages=1)
    assert not refused(client)
    users.error = AuthUnavailable()
    client.wait(5)
    assert refused(client)


def test_users_are_looked_up_once_a_second_at_most() -> None:
    users, client = site()
    for _ in range(20):
        put(client)
    assert users.looked_up == 1


def test_own_limits_come_before_those_of_the_domain_and_of_all() -> None:
    quotas = UserQuotas(
        Quota(1, 10, 100), {"example.test": Quota(2, UNLIMITED), "example.org": Quota(messages=7)}, "example.org"
    )
    user = User("anna@example.test", limits=Limits(quota=Quota(mailboxes=5)))
    assert quotas.of_user(user) == Quota(2, UNLIMITED, 5)
    assert quotas.of_user(User("bert")) == Quota(1, 7, 100)
    assert quotas.of_user(User("c@example.net")) == Quota(1, 10, 100)
    assert run_now(quotas.of_name("nobody@example.test", FakeAuthenticator(), Quota())) == Quota(2, UNLIMITED, 100)


def test_a_message_that_does_not_fit_is_not_asked_for() -> None:
    client = logged_in(services(quotas=UserQuotas(Quota(storage=100))))
    assert client.ask(b"a APPEND INBOX {101}\r\n").startswith(b"a NO [OVERQUOTA]")
    assert client.ask(b"a APPEND INBOX {99}\r\n").startswith(b"+ ")
    client.hang_up()


def test_a_refusal_is_logged() -> None:
    client = selected(services(quotas=UserQuotas(Quota(messages=1))), messages=1)
    assert b"a NO [OVERQUOTA]" in client.ask(b"a COPY 1 INBOX\r\n")
    assert ("quota-refused", {"user": "anna@example.test", "command": "COPY"}) in client.channel.logged
