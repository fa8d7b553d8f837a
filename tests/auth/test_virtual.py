"""Aliases in a file of Postfix's format: what lines mean, faulty ones, and a file that changes."""

from __future__ import annotations

import logging
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from mailserver.auth.addresses import Addresses
from mailserver.auth.backends.virtual import MAX_FAULTS, Aliases, VirtualAliases, check_backend, make_backend, parse
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


class Directly(Executor):
    """Reads at once."""

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*arguments, **named))
        except Exception as error:
            done.set_exception(error)
        return done


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.path.write_text(FILE)
        self.source = VirtualAliases(path, lambda: self.now, Directly())
        users = {"carla", "anna@example.org", "ben@example.org", "archive@example.org"}

        async def find(name: str) -> User | None:
            return User(name) if name in users else None

        async def pause() -> None: ...

        self.addresses = Addresses([Source(self.source)], find, {"example.org"}.__contains__, pause, "example.org")

    def ends(self, address: str) -> list[str]:
        found = run_now(self.addresses.resolve(address, "+"))
        return [f"{user.name}|{detail}" for user, detail in found.local] + list(found.elsewhere)

    def look(self, times: int) -> None:
        """Let a second pass before each look at the file."""
        for _ in range(times):
            self.now += 1.5
            self.source.find_domain("example.net")

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


def cuts() -> list[int]:
    """Before each octet of the last eighty, and of some before."""
    return sorted({*range(len(FILE) - 80, len(FILE)), *range(0, len(FILE), 7)})


@pytest.mark.parametrize("cut", cuts())
def test_a_file_that_is_being_written_is_not_taken(site: Site, cut: int) -> None:
    new = FILE.replace("carl@elsewhere.test", "carla@elsewhere.test")
    site.ends("info@example.org")
    before = site.source._file.current()
    with site.path.open("w") as file:
        file.write(new[:cut])
        file.flush()
        site.look(1)
        assert site.source._file.current() is before
        file.write(new[cut:])
    # The writer has gone on since the last look: the next one finds another change.
    site.look(1)
    assert site.source._file.current() is before
    site.look(1)
    assert site.ends("sales@example.org")[-1] == "carla@elsewhere.test"


@pytest.mark.parametrize(
    "cut", [each for each in cuts() if not FILE[:each].endswith("\n") or FILE[:each].endswith(",\n")]
)
def test_a_writer_that_was_killed_leaves_the_last_good_aliases(
    site: Site, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    site.ends("info@example.org")
    before = site.source._file.current()
    site.path.write_text(FILE[:cut])
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            site.look(1)
    assert site.source._file.current() is before
    assert len(caplog.records) == 1
    site.path.write_text(FILE)
    site.look(2)
    assert site.source._file.current() is not before
    assert site.source._file.current() == before


def test_a_file_that_changes_while_it_is_read_is_not_taken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ends("info@example.org")
    before = site.source._file.current()

    def parsed(text: str) -> Aliases:
        with site.path.open("a") as file:
            file.write("# more\n")
        return parse(text)

    monkeypatch.setattr("mailserver.auth.backends.virtual.parse", parsed)
    site.path.write_text("sales@example.org ben@example.org\n")
    site.look(2)
    assert site.source._file.current() is before


def test_a_file_that_is_too_large_is_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.ends("info@example.org")
    monkeypatch.setattr("mailserver.auth.backends.virtual.MAX_FILE", 1000)
    monkeypatch.setattr("mailserver.auth.backends.virtual.parse", lambda _text: pytest.fail("it is parsed"))
    site.path.write_text("# no alias\n" * 100)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            site.look(1)
    assert [record.getMessage() for record in caplog.records] == [
        f"{site.path} cannot be read: it is larger than 1000 octets; the last good aliases stay valid"
    ]
    assert site.ends("hostmaster@example.org")
    assert "larger than 1000 octets" in str(check_backend(str(site.path))[0])


@pytest.mark.parametrize("end", ["", ",\n"], ids=["no-end", "comma"])
def test_a_last_line_that_may_be_cut_is_named_and_the_others_are_used(tmp_path: Path, end: str) -> None:
    path = tmp_path / "virtual"
    path.write_text(f"info@example.org ben@example.org\nsales@example.org ben@example.org{end}")
    assert "line 2: the last line" in str(check_backend(str(path))[0])
    assert VirtualAliases(path).find_address("info@example.org") is not None


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
