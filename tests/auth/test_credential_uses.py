"""When uses of app passwords are reported: soon, seldom, the last one of each, and never too many."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailserver.auth import credential_uses
from mailserver.auth.credential_uses import GATHERING_TIME, REPORT_INTERVAL, CredentialUse, CredentialUses
from mailserver.auth.interfaces import LoginContext, User
from tests.auth.test_service import Hashed, Site
from tests.auth.waiting import Timers


class Bench:
    def __init__(self) -> None:
        self.timers = Timers()
        self.wall = 1_790_000_000.0
        self.uses = CredentialUses(self.timers.clock, lambda: self.wall + self.timers.now, self.timers.call_later)
        self.reports: list[list[CredentialUse]] = []
        self.uses.report = lambda uses: self.reports.append(list(uses))

    def use(self, credential: str = "c1", peer: str | None = "192.0.2.7", protocol: str = "imap") -> None:
        self.uses.note(credential, "anna@example.test", ip_address(peer) if peer else None, protocol)

    def reported(self) -> list[tuple[str, str, str]]:
        reports, self.reports = self.reports, []
        return [(each.credential, each.network, each.protocol) for report in reports for each in report]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("peer", "network"),
    [("192.0.2.7", "192.0.2.0/24"), ("2001:db8:1:2::3", "2001:db8:1::/48"), (None, "local")],
    ids=["IPv4", "IPv6", "socket"],
)
def test_a_use_is_reported_soon_with_its_network(bench: Bench, peer: str | None, network: str) -> None:
    bench.use(peer=peer)
    assert bench.reported() == [], "not within the login"
    bench.timers.advance(GATHERING_TIME)
    assert bench.reports == [[CredentialUse("c1", "anna@example.test", network, "imap", 1_790_001_000)]]


def test_each_is_reported_at_most_once_in_some_minutes_by_its_last_use(bench: Bench) -> None:
    bench.use()
    bench.timers.advance(GATHERING_TIME)
    assert bench.reported() == [("c1", "192.0.2.0/24", "imap")]
    for number in range(60):
        bench.use(peer=f"198.51.{number}.7", protocol="pop3")
        bench.timers.advance(1)
    assert bench.reported() == []
    bench.use("c2")
    bench.timers.advance(GATHERING_TIME * 2)
    assert bench.reported() == [("c2", "192.0.2.0/24", "imap")], "others do not wait for it"
    bench.timers.advance(REPORT_INTERVAL)
    assert bench.reported() == [("c1", "198.51.59.0/24", "pop3")]
    bench.timers.advance(REPORT_INTERVAL * 3)
    assert bench.reported() == []
    assert not bench.timers.pending


def test_the_end_of_the_process_reports_the_rest(bench: Bench) -> None:
    bench.uses.flush()
    bench.use()
    bench.timers.advance(GATHERING_TIME)
    bench.use(peer="198.51.100.1")
    bench.reported()
    bench.uses.flush()
    assert bench.reported() == [("c1", "198.51.100.0/24", "imap")]
    bench.timers.advance(REPORT_INTERVAL * 2)
    assert bench.reported() == []


def test_too_many_are_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_uses, "MAX_WAITING", 2)
    for name in ("c1", "c2", "c3", "c1"):
        bench.use(name, protocol="pop3" if bench.timers.pending else "imap")
    bench.timers.advance(GATHERING_TIME)
    assert bench.reported() == [("c1", "192.0.2.0/24", "pop3"), ("c2", "192.0.2.0/24", "pop3")]
    bench.timers.advance(REPORT_INTERVAL * 2)
    bench.use()
    bench.timers.advance(GATHERING_TIME)
    assert len(bench.uses._reported) == 1, "old ones are forgotten"


def test_the_login_service_notes_accepted_logins_with_an_app_password(bench: Bench) -> None:
    site = Site(Hashed({}), credential_uses=bench.uses)
    context = LoginContext("submission", ip_address("192.0.2.7"), None, "s1")
    for user in (
        User("anna@example.test"),
        User("anna@example.test", credential="c1"),
        User("info@example.test", credential="c2", delegate="anna@example.test"),
    ):
        site.service.accepted(user, "PLAIN", context)
    bench.timers.advance(GATHERING_TIME)
    [report] = bench.reports
    assert [(each.credential, each.account) for each in report] == [
        ("c1", "anna@example.test"),
        ("c2", "anna@example.test"),
    ]
