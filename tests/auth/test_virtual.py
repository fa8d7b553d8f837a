"""Aliases in a file of Postfix's format: what lines mean, faulty ones, and a file that changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mailserver.auth.addresses import Addresses
from mailserver.auth.backends.virtual import MAX_FAULTS, VirtualAliases, check_backend, make_backend, parse
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import DomainEntry, Entry, User
from mailserver.auth.plugins import find_backend
from mailserver.auth.sources import Source
from mailserver.errors import AuthUnavailable, NoSuchUser
from tests.fakes import run_now

# As virtual(5) has them: comments and empty lines inside a line that continues, commas or spaces, any case.
FILE = """
# staff
Info@Example.org   anna@example.org,
  # Ben too
\tben@example.org

sales@example.org anna+sales@example.org carl@elsewhere.test
hostmaster\tanna@example.org
anna@example.org  anna@example.org, archive@example.org
bare              carla
list@example.org  bare
@example.net      @example.org
@example.org      ben@example.org
info@example.org  nobody@example.org
"""


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.path.write_text(FILE)
        self.source = VirtualAliases(path, lambda: self.now)
        users = {"carla", "anna@example.org", "ben@example.org", "archive@example.org"}

        async def find(name: str) -> User | None:
            return User(name) if name in users else None

        async def pause() -> None: ...

        self.addresses = Addresses([Source(self.source)], find, {"example.org"}.__contains__, pause, "example.org")

    def ends(self, address: str) -> list[str]:
        found = run_now(self.addresses.resolve(address, "+"))
        return [f"{user.name}|{detail}" for user, detail in found.local] + list(found.elsewhere)

    def write(self, text: str) -> None:
        """As an editor that replaces the file, and wait until that is noticed."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)
        self.now += 2
        self.source.reload()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "virtual")


@pytest.mark.parametrize(
    ("address", "ends"),
    [
        ("INFO@example.org", ["anna@example.org|", "archive@example.org|", "ben@example.org|"]),
        ("info+x@example.net", ["anna@example.org|x", "archive@example.org|x", "ben@example.org|x"]),
        ("sales@example.org", ["anna@example.org|sales", "archive@example.org|sales", "carl@elsewhere.test"]),
        ("hostmaster@example.org", ["anna@example.org|", "archive@example.org|"]),
        ("anna@example.org", ["anna@example.org|", "archive@example.org|"]),
        ("list@example.org", ["carla|"]),
        ("unknown@example.org", ["ben@example.org|"]),
        ("unknown@example.net", ["ben@example.org|"]),
        ("archive+x@example.org", ["archive@example.org|x"]),
    ],
)
def test_lines_mean_what_postfix_says(site: Site, address: str, ends: list[str]) -> None:
    assert site.ends(address) == ends


def test_users_send_as_addresses_that_lead_to_them(site: Site) -> None:
    for user, address, may in (
        ("ben@example.org", "info@example.org", True),
        ("ben@example.org", "info@example.net", True),
        ("archive@example.org", "info@example.org", False),
        ("ben@example.org", "anna@example.org", False),
        ("archive@example.org", "anna@example.org", False),
        ("carla", "bare@example.org", True),
        ("ben@example.org", "bare@example.org", False),
        ("anna@example.org", "anna@example.org", True),
    ):
        assert run_now(site.addresses.may_send_as(User(user), address)) is may


def test_a_domain_that_stands_for_another_is_served(site: Site) -> None:
    assert run_now(site.addresses.serves_domain("Example.NET"))
    assert site.source.find_domain("example.net") == DomainEntry("example.org")
    assert not run_now(site.addresses.serves_domain("elsewhere.test"))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("info@example.org", "line 1: 'info@example.org' has no target"),
        ("info@example.org   ,", "line 1: 'info@example.org' has no target"),
        ("  anna@example.org", "line 1: it continues no line"),
        ("a/b@example.org anna@example.org", "line 1: "),
        ("info@example.org \x01@example.org", "line 1: "),
        ("info@example.org @example.net", "line 1: an address cannot lead to all addresses of a domain"),
        ("@a.test @b.test @c.test", "line 1: a domain stands for one other domain"),
        ("info@example.org |/bin/program", "line 1: "),
    ],
)
def test_faulty_lines_are_named_and_hurt_no_other(line: str, fault: str) -> None:
    found = parse(f"{line}\nben@example.org anna@example.org\n")
    assert len(found.faults) == 1
    assert found.faults[0].startswith(fault)
    assert list(found.targets) == ["ben@example.org"]


def test_faults_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "virtual"
    path.write_text("info@example.org\n" * 100_000)
    assert len(check_backend(str(path))) == MAX_FAULTS
    assert all(problem.warning for problem in check_backend(str(path)))


def test_a_faulty_file_leaves_the_last_good_aliases(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.ends("info@example.org")
    with caplog.at_level(logging.ERROR):
        site.write("sales@example.org ben@example.org\ninfo@example.org\n")
        assert site.ends("hostmaster@example.org")
        site.write("sales@example.org ben@example.org\ninfo@example.org\n")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "line 2: 'info@example.org' has no target; the last good aliases stay valid" in said[0]
    site.write("sales@example.org ben@example.org\n")
    assert site.ends("sales@example.org") == ["ben@example.org|"]
    with pytest.raises(NoSuchUser):
        site.ends("hostmaster@example.org")


def test_at_the_start_the_lines_that_can_be_used_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "virtual"
    path.write_text("info@example.org\nsales@example.org ben@example.org\n")
    source = VirtualAliases(path)
    assert source.find_address("sales@example.org") == Entry(("ben@example.org",), frozenset({"ben@example.org"}))
    assert "this line is left out" in caplog.text


def test_a_file_that_never_was_there_makes_mail_wait(tmp_path: Path) -> None:
    source = make_backend(str(tmp_path / "gone"), DirectHasher())
    for ask in (source.find_address, source.find_domain):
        with pytest.raises(AuthUnavailable):
            ask("info@example.org")
    assert "cannot be read" in str(check_backend(str(tmp_path / "gone"))[0])
    with pytest.raises(ValueError, match="absolute path"):
        make_backend("aliases", DirectHasher())


def test_it_is_found_by_its_name(tmp_path: Path) -> None:
    assert isinstance(find_backend(f"virtual:{tmp_path}/x", DirectHasher()), VirtualAliases)


def test_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "virtual"
    path.write_text("".join(f"a{number}@example.org u{number}@example.org\n" for number in range(100_000)))
    source = VirtualAliases(path)
    entry = source.find_address("a99999@example.org")
    assert entry is not None
    assert entry.targets == ("u99999@example.org",)


def test_senders_of_an_address(tmp_path: Path) -> None:
    site = Site(tmp_path / "virtual")

    def senders(address: str) -> set[str]:
        return set(run_now(site.addresses.senders_of(address)))

    assert senders("Info@example.org") == {"anna@example.org", "ben@example.org"}
    assert senders("info@example.net") == senders("info@example.org"), "the domain stands for the other"
    assert senders("ben@example.org") == {"ben@example.org"}
    assert senders("anna@example.org") >= {"anna@example.org"}, "its own name, though there is an alias of it"
    assert senders("anna@elsewhere.test") == senders("not an address") == senders("") == set()
    users = ("anna@example.org", "ben@example.org", "archive@example.org")
    for address in (
        "info@example.org",
        "sales@example.org",
        "anna@example.org",
        "hostmaster@example.org",
        "x@example.org",
    ):
        may = {name for name in users if run_now(site.addresses.may_send_as(User(name), address))}
        assert senders(address) & set(users) == may
