"""Local parts that are unusual: command, document, RCPT, the lookup socket and the right to send agree about each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailserver.auth.addresses import Addresses
from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.backends.virtual import parse
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import User
from mailserver.auth.sources import Source
from mailserver.directory import address_changes
from mailserver.directory.model import AddressKind, StoredAddress, StoredDomain, Target
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import BadSyntax, NoSuchUser
from mailserver.lookup import maps
from mailserver.smtp.address import address_of, parse_rcpt
from mailserver.smtp.transaction import find_recipients
from tests.cli.test_aliases import ANNA, ROOT, Site
from tests.fakes import run_now

DOMAIN = "example.org"


def asked(path: Path) -> Addresses:
    """The addresses of a directory, as a server asks for them."""
    backend = DirectoryBackend(path, DirectHasher())

    async def find(name: str) -> User | None:
        return backend.find_user(name)

    async def pause() -> None: ...

    return Addresses([Source(backend)], find, {DOMAIN}.__contains__, pause)


def rcpt(addresses: Addresses, local: str) -> list[tuple[str, str]] | None:
    """The users, with details, that get the mail of RCPT; None for a refusal."""
    try:
        path = parse_rcpt(f"TO:<{local}@{DOMAIN}>".encode("utf-8", "surrogatepass"))
        assert path.address is not None
        found = run_now(find_recipients(addresses, path.address, "+"))  # type: ignore[arg-type]
    except (BadSyntax, NoSuchUser):
        return None
    return [(user.name, detail) for user, detail in found.local]


def lookup(addresses: Addresses, local: str) -> str | None:
    async def find(local: str, domain: str) -> object:
        return await addresses.resolve(f"{local}@{domain}", "+")

    services = maps.Services(addresses, find, "+")  # type: ignore[arg-type]
    return run_now(maps.alias(services, f"{local}@{DOMAIN}"))


NAMES = {
    "plain": ("info", "info", "info"),
    "case": ("Info", '"INFO"', "info"),
    "quotes-without-need": ('"info"', "info", "info"),
    "quotes-with-dots": ('"o.d-d"', "o.d-d", "o.d-d"),
    "quoted-pair": ('"in\\fo"', "info", "info"),
    "dot-at-the-end": ("a.", '"a."', "a."),
    "dot-at-the-end-quoted": ('"a."', '"a."', "a."),
    "dot-at-the-beginning": (".a", '".a"', ".a"),
    "two-dots": ("a..b", '"a..b"', "a..b"),
    "percent": ("a%b", "a%b", "a%b"),
    "bang": ("a!b", "a!b", "a!b"),
    "percent-quoted": ('"a%elsewhere.test"', "a%elsewhere.test", "a%elsewhere.test"),
    "parenthesis": ("a(b", '"a(b"', "a(b"),
    "comma": ('"a,b"', '"a,b"', "a,b"),
    "quote": ('"a\\"b"', '"a\\"b"', 'a"b'),
    "backslash": ('"a\\\\b"', '"a\\\\b"', "a\\b"),
    "pipe": ("|a", "|a", "|a"),
    "utf8": ("Jürgen", "JÜRGEN", "jürgen"),
    "utf8-quoted": ('"jürgen"', "jürgen", "jürgen"),
    "utf8-decomposed": ("ju\u0308rgen", "jürgen", "jürgen"),
    "separator-at-the-beginning": ("+a", "+a", "+a"),
    "separator-alone": ("+", "+", "+"),
    "separator-at-the-end": ("info+", "info+", "info+"),
    "separator-within": ("info+lists", '"info+lists"', "info+lists"),
    "64-octets": ("a" * 64, "a" * 64, "a" * 64),
    "64-octets-of-utf8": ("ä" * 32, "ä" * 32, "ä" * 32),
}
"""As a command or a document has it, as RCPT has it, and what both mean."""


@pytest.mark.parametrize(("written", "sent", "normal"), NAMES.values(), ids=NAMES)
def test_names_that_all_take(tmp_path: Path, written: str, sent: str, normal: str) -> None:
    site = Site(tmp_path)
    site.ok("alias", "add", f"{written}@{DOMAIN}", ANNA)
    assert site.stored(f"{normal}@{DOMAIN}") is not None
    file = tmp_path / "wanted.toml"
    for spelling in (written, sent):
        file.write_text(f"[[alias]]\naddress = {json.dumps(f'{spelling}@{DOMAIN}')}\ntargets = ['{ANNA}']\n")
        assert site.ok("directory", "plan", str(file)) == "nothing to change\n"
        assert f"{ANNA}" in site.ok("alias", "show", f"{spelling}@{DOMAIN}")
    addresses = asked(site.path)
    assert rcpt(addresses, sent) == [(ANNA, "")]
    assert lookup(addresses, sent) == lookup(addresses, written) == ANNA
    assert run_now(addresses.may_send_as(User(ANNA), f"{normal}@{DOMAIN}"))
    if not any(each in written for each in " ,"):
        assert list(parse(f"{written}@{DOMAIN} {ANNA}\n").targets) == [f"{normal}@{DOMAIN}"]


REFUSED = {
    "space": "a b",
    "space-quoted": '"a b"',
    "slash": "a/b",
    "colon-quoted": '"a:b"',
    "nul": "a\0b",
    "nul-quoted": '"a\0b"',
    "tab-quoted": '"a\tb"',
    "newline-quoted": '"a\nb"',
    "at": "a@b",
    "at-quoted": '"a@b"',
    "nothing": "",
    "nothing-quoted": '""',
    "dot": '"."',
    "dots": '".."',
    "invisible": "a\u200b",
    "65-octets": "a" * 65,
    "66-octets-of-utf8": "ä" * 33,
}


@pytest.mark.parametrize("local", REFUSED.values(), ids=REFUSED)
def test_names_that_nobody_takes(tmp_path: Path, local: str) -> None:
    site = Site(tmp_path)
    if local:
        assert site.run("alias", "add", f"{local}@{DOMAIN}", ANNA).exit_code == 1
    file = tmp_path / "wanted.toml"
    # A catch-all is written "@domain".
    address = json.dumps(f"{local or chr(34) * 2}@{DOMAIN}")
    for text in (f"address = {address}\ntargets = ['{ANNA}']", f"address = 'x@{DOMAIN}'\ntargets = [{address}]"):
        file.write_text(f"[[alias]]\n{text}\n")
        said = site.refused("directory", "plan", str(file), "--force")
        assert "line 1: " in said or "TOML" in said
    addresses = asked(site.path)
    assert rcpt(addresses, local) is None
    assert lookup(addresses, local) is None
    assert not run_now(addresses.may_send_as(User(ANNA), f"{local}@{DOMAIN}"))


DETAILS = {
    "plain": ("lists", "lists"),
    "case": ("Lists", "Lists"),
    "folder": ("Lists/Python", "Lists/Python"),
    "space": ('"anna+my list"', "my list"),
    "colon": ('"anna+a:b"', "a:b"),
    "at": ('"anna+a@b"', "a@b"),
    "separator": ("+", "+"),
    "separator-at-the-end": ("a+", "a+"),
    "none": ("", ""),
    "dots": ('"anna+.."', ".."),
    "utf8": ("Ärger", "Ärger"),
    "invisible": ("a\u200b", None),
    "64-octets": ("x" * 59, "x" * 59),
    "65-octets": ("x" * 60, None),
}


@pytest.mark.parametrize(("local", "detail"), DETAILS.values(), ids=DETAILS)
def test_details(tmp_path: Path, local: str, detail: str | None) -> None:
    local = local if local.startswith('"') else f"anna+{local}"
    site = Site(tmp_path)
    addresses = asked(site.path)
    expected = None if detail is None else [(ANNA, detail)]
    assert rcpt(addresses, local) == expected
    # The answer has the form in which LMTP finds the same user and folder.
    answer = lookup(addresses, local)
    assert (answer is None) is (expected is None)
    if answer is not None:
        assert rcpt(addresses, answer.removesuffix(f"@{DOMAIN}")) == expected


def test_a_separator_of_the_domain_and_one_for_which_it_stands(tmp_path: Path) -> None:
    site = Site(tmp_path)
    database = SQLiteDatabase.open(site.path)
    address_changes.add_domain(database, ROOT, StoredDomain(DOMAIN, detail="-"))
    database.close()
    addresses = asked(site.path)
    assert rcpt(addresses, "anna-Lists/Python") == [(ANNA, "Lists/Python")]
    assert rcpt(addresses, "anna+Lists/Python") is None


def test_a_detail_no_name_can_have_is_carried_on_and_never_asked_for(tmp_path: Path) -> None:
    site = Site(tmp_path)
    database = SQLiteDatabase.open(site.path)
    address_changes.add_address(database, ROOT, StoredAddress(f"info@{DOMAIN}", AddressKind.ALIAS, (Target(ANNA),)))
    database.close()
    assert rcpt(asked(site.path), '"info+my list"') == [(ANNA, "my list")]


@pytest.mark.parametrize("local", ["a..b", "a.", "a(b", "jürgen", 'a"b'])
def test_targets_elsewhere_are_addresses_of_their_servers(local: str) -> None:
    address = address_of(f"{local}@elsewhere.test")
    assert address is not None
    assert address.local == local


@pytest.mark.parametrize("text", ["a\r\n@elsewhere.test", "@elsewhere.test", "a", "a" * 65 + "@x.test"])
def test_what_is_no_address_goes_to_nobody(text: str) -> None:
    assert address_of(text) is None
