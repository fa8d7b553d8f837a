"""What the recipients of one transaction may take: each address is looked up once, and all of them are bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.auth.interfaces import Entry, User
from mailserver.filing.local_copies import MAX_COPIES
from tests.fakes import Client
from tests.smtp.world import FakeHop, World

USERS = tuple(f"u{number}@example.test" for number in range(900))
MESSAGE = b"From: anna@example.test\r\n\r\ntext\r\n"


class Site:
    def __init__(self, directory: Path, *, by_submission: bool) -> None:
        self.world = World(directory, FakeHop())
        authenticator = self.world.authenticator
        authenticator.users |= dict.fromkeys(USERS, "x")
        authenticator.entries = {
            "all@example.test": Entry(USERS),
            "gone@example.test": Entry(tuple(f"gone{number}@example.test" for number in range(900))),
            "far@example.test": Entry(tuple(f"x{number}@elsewhere.test" for number in range(900))),
            "far2@example.test": Entry(tuple(f"x{number}@elsewhere.test" for number in range(200))),
            "far3@example.test": Entry(tuple(f"y{number}@elsewhere.test" for number in range(200))),
        }
        self.asked = 0
        find = authenticator.find

        async def counted(name: str) -> User | None:
            self.asked += 1
            return await find(name)

        authenticator.find = counted  # type: ignore[method-assign]
        self.by_submission = by_submission

    def begin(self) -> Client:
        client = self.world.log_in() if self.by_submission else self.world.lhlo()
        client.ask(b"MAIL FROM:<anna@example.test>\r\n")
        self.asked = 0
        return client


@pytest.fixture(params=[False, True], ids=["lmtp", "submission"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return Site(tmp_path, by_submission=request.param)


def rcpt(client: Client, local: str) -> bytes:
    return client.ask(f"RCPT TO:<{local}@example.test>\r\n".encode())[:9]


def test_an_address_is_looked_up_once_in_a_transaction(site: Site) -> None:
    client = site.begin()
    assert rcpt(client, "all") == b"250 2.1.5"
    assert site.asked == 900
    for _ in range(200):
        assert rcpt(client, "All" if site.by_submission else "ALL")[:3] in {b"250", b"452"}
        assert rcpt(client, "all")[:3] in {b"250", b"452"}
    assert site.asked <= 1800
    client.ask(b"RSET\r\nMAIL FROM:<anna@example.test>\r\n")
    assert rcpt(client, "all") == b"250 2.1.5"


@pytest.mark.parametrize("name", ["all", "gone"])
def test_other_details_of_an_address_do_not_go_on_without_end(site: Site, name: str) -> None:
    client = site.begin()
    answers = [rcpt(client, f"{name}+{number}") for number in range(200)]
    assert answers[-1] == b"452 4.5.3"
    assert site.asked <= 3 * MAX_COPIES + 200
    client.ask(b"RSET\r\nMAIL FROM:<anna@example.test>\r\n")
    assert rcpt(client, "anna") == b"250 2.1.5"


def test_the_hop_is_asked_for_each_target_once_and_for_no_more_than_a_message_may_have(tmp_path: Path) -> None:
    site = Site(tmp_path, by_submission=True)
    client = site.begin()
    assert rcpt(client, "far") == b"250 2.1.5"
    assert rcpt(client, "far2") == b"250 2.1.5"
    assert rcpt(client, "far3") == b"452 4.5.3"
    hop = site.world.hop
    assert hop is not None
    assert sum(line.startswith(b"RCPT") for line in hop.lines) == 900


def test_a_refusal_is_remembered_in_its_transaction_alone(site: Site) -> None:
    client = site.begin()
    assert rcpt(client, "new") == b"550 5.1.1"
    site.world.authenticator.users["new@example.test"] = "x"
    assert rcpt(client, "new") == b"550 5.1.1"
    client.ask(b"RSET\r\nMAIL FROM:<anna@example.test>\r\n")
    assert rcpt(client, "new") == b"250 2.1.5"
