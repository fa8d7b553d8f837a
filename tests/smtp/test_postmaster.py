"""Mail to postmaster is always taken (RFC 5321 4.5.1), and whose it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from mailserver.auth import resolution
from mailserver.auth.interfaces import DomainEntry, Entry, LookUpBudget, Resolution, User
from mailserver.config.model import Auth, Config, Domain, Listener, Mail, Server
from mailserver.errors import AuthUnavailable, NoSuchUser
from mailserver.smtp.address import Address
from mailserver.smtp.postmaster import Postmaster
from mailserver.smtp.postmaster_check import check
from mailserver.smtp.transaction import LookupFailed, find_recipients
from tests.fakes import run_now
from tests.smtp.world import World, begin

NAMED = Postmaster("anna@example.test", "example.test")


class Users:
    """Users of two domains; a bare name is of example.test."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.down = False
        self.entries: dict[str, Entry] = {}

    async def find(self, address: str) -> User | None:
        if self.down:
            raise AuthUnavailable
        for name in (address, f"{address}@example.test"):
            if name in self.names:
                return User(name)
        return None

    def is_local_domain(self, domain: str) -> bool:
        return domain.lower() in {"example.test", "example.org"}

    async def serves_domain(self, domain: str) -> bool:
        return self.is_local_domain(domain)

    async def find_user(self, name: str) -> User | None:
        return await self.find(name)

    async def find_address(self, name: str) -> Entry | None:
        return self.entries.get(name)

    async def find_domain(self, _name: str) -> DomainEntry | None:
        return None

    async def resolve(self, address: str, separator: str, budget: LookUpBudget | None = None) -> Resolution:
        return await resolution.resolve(self, address.lower(), separator, budget=budget)


def found(users: Users, local: str, domain: str = "", postmaster: Postmaster = NAMED) -> str:
    resolved = run_now(find_recipients(users, Address(local, domain), "+", postmaster))  # type: ignore[arg-type]
    return " ".join(user.name for user, _detail in resolved.local)


@pytest.mark.parametrize("local", ["postmaster", "Postmaster", "POSTMASTER", "postmaster+report"])
@pytest.mark.parametrize("domain", ["", "example.test", "Example.ORG"])
def test_it_goes_to_the_named_user(local: str, domain: str) -> None:
    assert found(Users("anna@example.test"), local, domain) == "anna@example.test"


def test_a_user_of_that_name_keeps_its_own() -> None:
    users = Users("anna@example.test", "postmaster@example.org")
    assert found(users, "postmaster", "example.org") == "postmaster@example.org"
    assert found(users, "postmaster", "example.test") == "anna@example.test"
    assert found(users, "postmaster", "", Postmaster("anna@example.test", "example.org")) == "postmaster@example.org"


@pytest.mark.parametrize("named", ["", "gone@example.test"])
def test_without_such_a_user_it_is_kept_where_nobody_loses_it(named: str) -> None:
    postmaster = Postmaster(named, "example.test")
    assert found(Users(), "postmaster", "Example.ORG", postmaster) == "postmaster@example.org"
    assert found(Users(), "PostMaster", "", postmaster) == "postmaster@example.test"


def test_where_an_account_needs_a_home_it_is_to_be_tried_again() -> None:
    homeless = Postmaster("", "example.test", keeps=False)
    for local, domain in (("postmaster", "example.org"), ("postmaster", "")):
        with pytest.raises(LookupFailed):
            found(Users(), local, domain, homeless)
    with pytest.raises(NoSuchUser):
        found(Users(), "nobody", "example.org", homeless)


def test_nobody_elses_address_is_postmasters() -> None:
    for local, domain in (("postmaster", "elsewhere.test"), ("postmasters", "example.test"), ("x", "")):
        with pytest.raises(NoSuchUser):
            found(Users("anna@example.test"), local, domain)


def test_a_back_end_that_cannot_answer_is_asked_again_later() -> None:
    users = Users()
    users.down = True
    with pytest.raises(LookupFailed):
        found(users, "postmaster", "example.test")


@pytest.mark.parametrize("recipient", [b"postmaster", b"Postmaster@example.test", b"postmaster@example.org"])
def test_lmtp_and_submission_take_it(tmp_path: Path, recipient: bytes) -> None:
    world = World(tmp_path)
    world.lmtp = attrs.evolve(world.lmtp, postmaster=NAMED)
    world.submission = attrs.evolve(world.submission, postmaster=NAMED)
    assert world.lhlo().ask(begin(recipient)).endswith(b"250 2.1.5 recipient accepted\r\n")
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask(b"RCPT TO:<%b>\r\n" % recipient) == b"250 2.1.5 recipient accepted\r\n"


def config(tmp_path: Path, users: str, **mail: Any) -> Config:
    (tmp_path / "users").write_text(users)
    return Config(
        Server(hostname="mail.example.test"),
        Mail(root=tmp_path, **mail),
        Auth(backends=(f"file:{tmp_path}/users",), default_domain="example.test"),
        tuple(Domain(name=name, hosts=(f"mail.{name}",)) for name in ("example.test", "example.org")),
        (Listener(protocol="lmtp"),),
        source=tmp_path / "mailserver.toml",
    )


def test_check_warns_where_nobody_reads_it(tmp_path: Path) -> None:
    (missing,) = check(config(tmp_path, "anna@example.test:x\n"))
    assert missing.warning
    assert "is missing" in missing.reason
    (gone,) = check(config(tmp_path, "anna@example.test:x\n", postmaster="ann@example.test"))
    assert "no users file has that user" in gone.reason
    (odd,) = check(config(tmp_path, "anna@example.test:x\n", postmaster="an na"))
    assert odd.warning


@pytest.mark.parametrize(
    ("users", "named"),
    [
        ("anna@example.test:x\n", "Anna@example.test"),
        ("postmaster@example.test:x\nPostmaster@example.org:x\n", ""),
        ("postmaster:x\npostmaster@example.org:x\n", ""),
    ],
)
def test_check_is_silent_where_somebody_does(tmp_path: Path, users: str, named: str) -> None:
    assert check(config(tmp_path, users, postmaster=named)) == []


def test_check_asks_nothing_of_who_takes_no_mail(tmp_path: Path) -> None:
    without = attrs.evolve(config(tmp_path, ""), listeners=(Listener(protocol="imaps"),))
    assert check(without) == []
