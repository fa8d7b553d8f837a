"""The right to send as an address: of its user, else of the users of an alias; of nobody where its mail is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from zope.interface import implementer

from mailserver.auth.addresses import Addresses
from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.backends.virtual import VirtualAliases
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import IOwnAddresses, User
from mailserver.auth.restrictions import Names
from mailserver.auth.sources import Source
from mailserver.config.model import BackendUse
from mailserver.directory import address_changes, changing
from mailserver.directory.changing import Author
from mailserver.directory.model import AddressKind, NewAccount, StoredAddress, StoredDomain, Target
from mailserver.directory.sqlite import SQLiteDatabase
from tests.fakes import run_now

AUTHOR = Author("test", 1)


class Site:
    """Addresses as the login service has them, with example.org as the default domain."""

    def __init__(self, *users: str) -> None:
        self.users = users
        self.names = Names(frozenset({"example.org"}), "example.org", lambda _host: None)
        self.asked: list[str] = []

    def use(self, *sources: object) -> None:
        async def pause() -> None: ...

        self.addresses = Addresses(
            [Source(each) for each in sources], self.find, {"example.org"}.__contains__, pause, "example.org"
        )

    async def find(self, name: str) -> User | None:
        self.asked.append(name)
        names = self.names.candidates(name, None)
        if name.endswith("@example.org"):
            names.append(name.removesuffix("@example.org"))
        return next((User(each) for each in names if each in self.users), None)

    def senders(self, address: str) -> list[str]:
        """The users that may send as it, by both questions."""
        listed = run_now(self.addresses.senders_of(address))
        may = {each for each in self.users if run_now(self.addresses.may_send_as(User(each), address))}
        assert listed == may
        return sorted(may)


def of_file(tmp_path: Path, text: str, *users: str) -> Site:
    path = tmp_path / "virtual"
    path.write_text(text)
    site = Site(*users)
    site.use(VirtualAliases(path))
    return site


@pytest.mark.parametrize("key", ["anna", "anna@example.org"])
@pytest.mark.parametrize("user", ["anna", "anna@example.org"])
@pytest.mark.parametrize("targets", ["anna, ben", "anna@example.org ben", "anna@example.org ben@example.org", "ben"])
@pytest.mark.parametrize("ben", ["ben", "ben@example.org"])
def test_a_copy_of_a_users_mail_gives_no_right(tmp_path: Path, key: str, user: str, targets: str, ben: str) -> None:
    site = of_file(tmp_path, f"{key} {targets}\n@example.net @example.org\n", user, ben)
    for address in ("anna@example.org", "anna@example.net"):
        listed = run_now(site.addresses.senders_of(address))
        assert listed == {user}
        assert not run_now(site.addresses.may_send_as(User(ben), address))
    assert run_now(site.addresses.may_send_as(User(user), "anna@example.net"))


@pytest.mark.parametrize("ben", ["ben", "ben@example.org"])
@pytest.mark.parametrize("target", ["ben", "ben@example.org", "Ben@Example.ORG"])
@pytest.mark.parametrize("key", ["info", "info@example.org"])
def test_an_alias_gives_the_right_however_names_are_written(tmp_path: Path, key: str, target: str, ben: str) -> None:
    site = of_file(tmp_path, f"{key} {target}\n", ben, "carl")
    assert site.senders("info@example.org") == [ben]


def test_a_user_whose_domain_stands_for_another_is_no_other_user(tmp_path: Path) -> None:
    site = of_file(tmp_path, "@example.net @example.org\n", "anna@example.net", "anna@example.org")
    assert run_now(site.addresses.senders_of("anna@example.net")) == {"anna@example.net"}
    assert not run_now(site.addresses.may_send_as(User("anna@example.org"), "anna@example.net"))


@pytest.mark.parametrize(
    "text",
    [
        "info@example.org anna@example.org, team@example.org\nteam@example.org info@example.org\n",
        "info@example.org anna@example.org team+x@example.org\nteam@example.org info@example.org\n",
        "@example.org @example.net\n@example.net @example.org\ninfo@example.org anna@example.org\n",
        "info@example.org anna@example.org " + " ".join(f"x{number}@elsewhere.test" for number in range(1001)) + "\n",
    ],
    ids=["addresses", "with-a-detail", "domains", "too-many-ends"],
)
def test_an_address_whose_mail_is_refused_gives_no_right(tmp_path: Path, text: str) -> None:
    site = of_file(tmp_path, text, "anna@example.org")
    assert site.senders("info@example.org") == []


def test_a_right_is_looked_for_among_all_targets_only_for_a_user_of_the_alias(tmp_path: Path) -> None:
    members = [f"u{number}@example.org" for number in range(900)]
    site = of_file(tmp_path, "all@example.org " + " ".join(members) + "\n", *members, "anna")
    assert not run_now(site.addresses.may_send_as(User("anna"), "all@example.org"))
    assert len(site.asked) <= 2


@pytest.mark.parametrize(
    ("address", "senders"),
    [
        ("anna+lists@example.org", ["anna@example.org"]),
        ("anna+lists@example.net", ["anna@example.org"]),
        ("info+sale@example.org", ["anna@example.org", "ben"]),
        ("ben+x@example.org", ["ben"]),
        ("anna+taken@example.org", ["ben"]),
        ("carl+x@example.org", ["carl+x@example.org"]),
        ("anna-lists@example.org", []),
        ("+x@example.org", []),
        ("nobody+x@example.org", []),
        ("anna+lists@elsewhere.test", []),
    ],
    ids=[
        "user",
        "domain-alias",
        "alias",
        "bare-user",
        "alias-of-its-own",
        "user-of-its-own",
        "other-separator",
        "no-base",
        "unknown",
        "elsewhere",
    ],
)
def test_a_detail_changes_nothing_unless_there_is_such_an_address(
    tmp_path: Path, address: str, senders: list[str]
) -> None:
    text = "info@example.org anna@example.org, ben\nanna+taken@example.org ben\n@example.net @example.org\n"
    site = of_file(tmp_path, text, "anna@example.org", "ben", "carl@example.org", "carl+x@example.org")
    assert site.senders(address) == senders


def test_a_domain_has_details_of_its_own(database: SQLiteDatabase, tmp_path: Path) -> None:
    address_changes.change_domain(database, AUTHOR, "example.org", detail="-")
    site = of_directory(tmp_path)
    assert site.senders("anna-lists@example.org") == ["anna@example.org"]
    assert site.senders("anna+lists@example.org") == []
    address_changes.change_domain(database, AUTHOR, "example.org", detail="")
    assert site.senders("anna-lists@example.org") == []


@implementer(IOwnAddresses)
class Owners:
    def find_owners(self, address: str) -> frozenset[str]:
        return frozenset({"anna@example.org", "eve@example.net"}) if address == "info@example.org" else frozenset()


def test_a_back_end_names_owners_in_its_domains_alone() -> None:
    async def find(name: str) -> User | None:
        return None

    async def pause() -> None: ...

    sources = [Source(Owners(), BackendUse("file:/users", domains=("example.org",)))]
    addresses = Addresses(sources, find, {"example.org"}.__contains__, pause)
    assert run_now(addresses.senders_of("info@example.org")) == {"anna@example.org"}


@pytest.fixture
def database(tmp_path: Path) -> SQLiteDatabase:
    database = SQLiteDatabase.create(tmp_path / "directory.db")
    for name in ("anna@example.org", "ben@example.org"):
        changing.add_account(database, AUTHOR, NewAccount(name))
    address_changes.add_domain(database, AUTHOR, StoredDomain("example.org"))
    address_changes.add_domain(database, AUTHOR, StoredDomain("example.net", "example.org"))
    for name, kind in (("info", AddressKind.ALIAS), ("all", AddressKind.GROUP), ("away", AddressKind.FORWARD)):
        target = Target("anna@example.org", may_send=kind is AddressKind.ALIAS)
        address_changes.add_address(database, AUTHOR, StoredAddress(f"{name}@example.org", kind, (target,)))
    return database


def of_directory(tmp_path: Path) -> Site:
    site = Site("anna@example.org", "ben@example.org")
    site.use(DirectoryBackend(tmp_path / "directory.db", DirectHasher()))
    return site


def test_an_alias_of_a_directory_gives_the_right_and_no_other_kind_does(
    tmp_path: Path, database: SQLiteDatabase
) -> None:
    site = of_directory(tmp_path)
    assert site.senders("info@example.org") == site.senders("info@example.net") == ["anna@example.org"]
    assert site.senders("all@example.org") == site.senders("away@example.org") == []
    assert site.senders("anna@example.net") == ["anna@example.org"]
    database.close()


@pytest.mark.parametrize(
    ("disabled", "left"),
    [
        ("info@example.org", {"anna@example.org", "anna@example.net"}),
        ("example.net", {"anna@example.org", "info@example.org"}),
        ("example.org", set()),
    ],
)
def test_what_is_disabled_gives_no_right(
    tmp_path: Path, database: SQLiteDatabase, disabled: str, left: set[str]
) -> None:
    site = of_directory(tmp_path)
    addresses = {f"{name}@{domain}" for name in ("anna", "info") for domain in ("example.org", "example.net")}
    assert all(site.senders(each) == ["anna@example.org"] for each in addresses)
    if "@" in disabled:
        address_changes.set_address_enabled(database, AUTHOR, disabled, enabled=False)
    else:
        address_changes.change_domain(database, AUTHOR, disabled, enabled=False)
    assert {each for each in addresses if site.senders(each)} == left
    database.close()
