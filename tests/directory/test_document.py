"""The directory as one TOML document: written and read again, compared, and made true in one transaction."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.directory import address_changes, applying, changing, credentials, plan, reading
from mailserver.directory.address_check import Finding, Names, Sort, find_faults
from mailserver.directory.changing import Author
from mailserver.directory.credentials import AppPassword
from mailserver.directory.document import Delegate, Document, User, write
from mailserver.directory.document_parse import Parsed, parse
from mailserver.directory.document_tables import Checks
from mailserver.directory.model import (
    AccountLimits,
    AddressKind,
    NewAccount,
    Password,
    Refused,
    State,
    StoredAddress,
    StoredDomain,
    StoredKeys,
    Target,
)
from mailserver.directory.plan import Plan, Surroundings
from mailserver.directory.sqlite import SQLiteDatabase
from tests import sweeps

ROOT = Author("root", 1_790_000_000)
ANNA, BEN, INFO, ALL = "anna@example.test", "ben@example.test", "info@example.test", "all@example.test"
HERE = Surroundings(domains=("example.test",))


def unchanged(text: str, *_rest: str) -> str:
    return text


def lower(name: str) -> str:
    if " " in name or not name:
        raise ValueError("a user name must not contain a space")
    return name.lower()


CHECKS = Checks(lower, lower, lower, unchanged, unchanged, unchanged, unchanged)


@pytest.fixture
def database(tmp_path: Path) -> SQLiteDatabase:
    return SQLiteDatabase.create(tmp_path / "directory.db")


def fill(database: SQLiteDatabase) -> None:
    """Two users with all that a document can say of them, an alias, a group, domains and a delegate."""
    keys = {"SHA-256": StoredKeys("4096,c2FsdA==", "c3RvcmVk,c2VydmVy")}
    limits = AccountLimits(("192.0.2.0/24", "local"), 10, 20, 30, ("imap",))
    changing.add_account(
        database,
        ROOT,
        NewAccount(ANNA, Password("{PLAIN}x", keys), "/home/anna", 'Anna "A" \\ Ä', State.DISABLED, limits),
    )
    changing.set_main_protocols(database, ROOT, ANNA, frozenset({"imap", "pop3"}))
    changing.add_account(database, ROOT, NewAccount(BEN, senders=frozenset({"benno@example.test"})))
    targets = Target(ANNA), Target(BEN, may_send=False), Target("x@elsewhere.test", is_account=False, may_send=False)
    address_changes.add_address(database, ROOT, StoredAddress(INFO, AddressKind.ALIAS, targets, note="since\t2026"))
    members = tuple(Target(f"m{number}@example.test", is_account=False, may_send=False) for number in range(5))
    address_changes.add_address(database, ROOT, StoredAddress(ALL, AddressKind.GROUP, members, enabled=False))
    address_changes.add_domain(database, ROOT, StoredDomain("example.org", detail="-", limits='{"networks":["local"]}'))
    address_changes.add_domain(database, ROOT, StoredDomain("example.com", "example.org", enabled=False))
    for label, protocols, expires in (("phone", frozenset({"imap"}), 1_800_000_000), ("printer", None, None)):
        new = AppPassword(credentials.new_id(), ANNA, label, protocols, expires, scram=keys)
        credentials.add_app_password(database, ROOT, new, digest(label), {"SHA-256": "4096,c2FsdA=="})
    before = applying.load(database)
    delegate = Delegate(ANNA, "example.org", 1_800_000_000, "on holiday")
    after = attrs.evolve(before, delegates={(ANNA, "example.org"): delegate})
    steps = plan.make(before, Parsed(after, (), {}), HERE, force=True).steps
    assert before.serial is not None
    applying.apply(database, ROOT, steps, (before.id, before.serial))


def digest(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()


def text_of(document: Document, *, secrets: bool = True) -> str:
    return "\n".join(write(document, secrets=secrets))


def plan_of(database: SQLiteDatabase, text: str, *, delete: bool = False, force: bool = False) -> Plan:
    return plan.make(applying.load(database), parse(text, CHECKS), HERE, delete=delete, force=force)


def apply(database: SQLiteDatabase, text: str, *, delete: bool = False) -> Plan:
    made = plan_of(database, text, delete=delete, force=True)
    assert [str(each) for each in made.faults] == []
    applying.apply(database, ROOT, made.steps, reading.identity(database))
    return made


def faults_of(database: SQLiteDatabase, text: str) -> list[str]:
    return [str(each) for each in plan_of(database, text).faults]


def test_a_document_that_was_written_changes_nothing(database: SQLiteDatabase) -> None:
    fill(database)
    document = applying.load(database)
    parsed = parse(text_of(document), CHECKS)
    assert parsed.faults == ()
    made = plan_of(database, text_of(document), delete=True, force=True)
    assert (made.steps, made.faults) == ((), ())
    assert plan_of(database, text_of(document, secrets=False), delete=True, force=True).steps == ()


def test_an_empty_directory_becomes_the_same(database: SQLiteDatabase, tmp_path: Path) -> None:
    fill(database)
    other = SQLiteDatabase.create(tmp_path / "other.db")
    document = applying.load(database)
    apply(other, text_of(document))
    assert attrs.evolve(applying.load(other), id=document.id, serial=document.serial) == document
    apply(other, "", delete=True)
    assert applying.load(other).users == applying.load(other).addresses == applying.load(other).domains == {}
    assert other.problems() == []


def test_no_secrets_are_written_without_them(database: SQLiteDatabase) -> None:
    fill(database)
    text = text_of(applying.load(database), secrets=False)
    assert "PLAIN" not in text
    assert "c2FsdA" not in text
    assert ANNA in text


def test_what_the_document_does_not_have_stays_unless_it_is_to_go(database: SQLiteDatabase) -> None:
    fill(database)
    text = f'[[user]]\nname = "zoe@example.test"\n[[alias]]\naddress = "{INFO}"\ntargets = ["zoe@example.test"]\n'
    assert [(step.action.value, step.kind, step.name) for step in plan_of(database, text).steps] == [
        ("add", "user", "zoe@example.test"),
        ("change", "alias", INFO),
    ]
    removed = {step.name for step in plan_of(database, text, delete=True).steps if step.action is plan.Action.REMOVE}
    assert removed == {
        ANNA, BEN, "benno@example.test", ALL, "example.org", "example.com", f"{ANNA} over example.org",
        f"phone of {ANNA}", f"printer of {ANNA}",
    }  # fmt: skip
    apply(database, text, delete=True)
    document = applying.load(database)
    assert set(document.users) == {"zoe@example.test"}
    assert document.addresses == {INFO: StoredAddress(INFO, AddressKind.ALIAS, (Target("zoe@example.test"),))}


def test_a_user_keeps_the_password_that_the_document_does_not_name(database: SQLiteDatabase) -> None:
    fill(database)
    apply(database, f'[[user]]\nname = "{ANNA}"\nfull_name = "Anna B."\n')
    account = reading.find_account(database, ANNA)
    assert account is not None
    assert account.password.secret == "{PLAIN}x"
    assert set(account.password.scram) == {"SHA-256"}
    assert (account.full_name, account.home, account.state) == ("Anna B.", "", State.ACTIVE)


def test_all_changes_have_one_number_and_say_what_they_were(database: SQLiteDatabase) -> None:
    fill(database)
    serial = reading.identity(database)[1]
    apply(
        database,
        f'[[user]]\nname = "{ANNA}"\npassword = "{{PLAIN}}y"\nhome = "/home/anna"\n'
        f'[[user]]\nname = "zoe@example.test"\n[[group]]\naddress = "{ALL}"\ntargets = ["{BEN}"]\n',
    )
    rows = list(reading.changes(database, serial))
    assert {row.serial for row in rows} == {serial + 1}
    assert [(row.what, row.account or row.facts.get("address", "")) for row in rows] == [
        (changing.APPLIED, ""),
        (changing.PASSWORD, ANNA),
        (changing.MAIN_PROTOCOLS, ANNA),
        (changing.ENABLED, ANNA),
        (changing.LIMITS, ANNA),
        ("full name changed", ANNA),
        (changing.ADDED, "zoe@example.test"),
        ("group changed", ALL),
    ]
    assert rows[0].facts == {"numbers": {"user changed": 1, "user added": 1, "group changed": 1}}
    assert rows[-1].facts["targets"] == [BEN]
    assert rows[-1].facts["before"][0] == "m0@example.test"


def test_a_plan_is_refused_after_another_change(database: SQLiteDatabase) -> None:
    fill(database)
    made = plan_of(database, '[[user]]\nname = "zoe@example.test"\n')
    identity = reading.identity(database)
    changing.set_state(database, ROOT, BEN, State.DISABLED)
    with pytest.raises(Refused, match="changed meanwhile"):
        applying.apply(database, ROOT, made.steps, identity)
    assert reading.find_account(database, "zoe@example.test") is None
    assert reading.identity(database)[1] == identity[1] + 1


def test_a_failure_in_the_middle_leaves_nothing(database: SQLiteDatabase) -> None:
    fill(database)
    before, taken = applying.load(database), StoredAddress(BEN, AddressKind.ALIAS)
    steps = (plan.Step("user", ANNA, before.users[ANNA], None), plan.Step("alias", BEN, None, taken))
    with pytest.raises(Refused):
        applying.apply(database, ROOT, steps, reading.identity(database))
    assert applying.load(database) == before


def test_names_change_places(database: SQLiteDatabase) -> None:
    """A user becomes an alias, an alias a user, and a domain stands for the one that stood for it."""
    text = '[[user]]\nname = "a@example.test"\n[[alias]]\naddress = "b@example.test"\ntargets = ["a@example.test"]\n'
    domains = '[[domain]]\nname = "one.test"\n[[domain]]\nname = "two.test"\nalias_of = "one.test"\n'
    apply(database, text + domains)
    text = '[[user]]\nname = "b@example.test"\n[[alias]]\naddress = "a@example.test"\ntargets = ["b@example.test"]\n'
    domains = '[[domain]]\nname = "two.test"\n[[domain]]\nname = "one.test"\nalias_of = "two.test"\n'
    apply(database, text + domains, delete=True)
    document = applying.load(database)
    assert set(document.users) == {"b@example.test"}
    assert document.addresses["a@example.test"].targets == (Target("b@example.test"),)
    assert document.domains["one.test"].alias_of == "two.test"
    assert document.domains["two.test"].alias_of is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[user]", "this is no TOML"),
        ('[[usr]]\nname = "x"\n', "there is no [[usr]]; did you mean [[user]]?"),
        ('user = "x"\n', "user must be written as [[user]] tables"),
        ('\n[[user]]\nname = "x"\npasword = "y"\n', "line 2: [[user]] has no key 'pasword'; did you mean password?"),
        ('[[user]]\nfull_name = "x"\n', "line 1: [[user]] needs name"),
        ('[[user]]\nname = "a b@example.test"\n', "line 1: 'a b@example.test': a user name must not contain a space"),
        ('[[user]]\nname = "x"\nenabled = 1\n', "line 1: enabled must be true or false"),
        ('[[user]]\nname = "x"\n[[user]]\nname = "X"\n', "line 3: the user x has a name that line 1 has already"),
        ('[[user]]\nname = "x"\n[[alias]]\naddress = "x"\n', "line 3: the alias x has a name that line 1 has already"),
        ('[[user]]\nname = "x"\nlimits = { stroage = 1 }\n', "line 1: x: there is no limit 'stroage'"),
        ('[[user]]\nname = "x"\nscram_sha256 = "y"\n', "line 1: x: SCRAM keys without the password"),
        ('[[user]]\nname = "@x"\n', "line 1: @x is the name of a catch-all"),
        ('[[user]]\nname = "x"\nhome = "/a\\nb"\n', "line 1: x: home has control characters"),
        ('[[domain]]\nname = "x"\ndetail = "ab"\n', "line 1: x: detail must be empty or one of"),
        ('[[domain]]\nname = "x"\nalias_of = "y"\n', "line 1: x stands for y, which is no [[domain]]"),
        (f'[[alias]]\naddress = "{BEN}"\n', f"line 1: {BEN} is a user in the directory"),
        (f'[[user]]\nname = "{INFO}"\n', f"line 1: the user {INFO} is an alias in the directory"),
        (f'[[alias]]\naddress = "y"\ntargets = ["{ANNA}"]\nno_send = ["{BEN}"]\n', f"line 1: y: {BEN} of no_send is no"),
        ('[[alias]]\naddress = "y"\ntargets = [1]\n', "line 1: targets must be a list of texts"),
        (f'[[alias]]\naddress = "{INFO}"\ntargets = ["q@example.test"]\n', "there is no user or address q@example.test"),
        ('[[alias]]\naddress = "y"\ntargets = ["y"]\n', "line 1: mail to y would go round in a loop: y to y"),
        ('[[delegate]]\nuser = "nobody"\nover = "example.test"\nwhy = "x"\n', "line 1: the delegate nobody is no user"),
        ('[directory]\nserial = "x"\n', "[directory] has id, a text, and serial, a whole number"),
    ],
)  # fmt: skip
def test_faults_are_sentences_with_lines(database: SQLiteDatabase, text: str, said: str) -> None:
    fill(database)
    assert any(fault.startswith(said) or said in fault for fault in faults_of(database, text)), faults_of(
        database, text
    )


def test_all_faults_are_found_at_once(database: SQLiteDatabase) -> None:
    text = '[[user]]\nname = "a b"\n\n[[user]]\nnme = "x"\n[[alias]]\naddress = "y"\ntargets = ["z@example.test"]\n'
    assert [fault.partition(":")[0] for fault in faults_of(database, text)] == ["line 1", "line 4", "line 4", "line 6"]


def test_a_head_within_a_text_brings_no_wrong_line(database: SQLiteDatabase) -> None:
    text = '[[alias]]\naddress = "x"\nnote = """\n[[alias]]\n"""\n[[alias]]\naddress = "y"\nnot = ""\n'
    assert faults_of(database, text) == ["[[alias]] number 2: [[alias]] has no key 'not'; did you mean note?"]


def test_targets_elsewhere_where_mail_cannot_leave(database: SQLiteDatabase) -> None:
    parsed = parse('[[group]]\naddress = "g@example.test"\ntargets = ["x@elsewhere.test"]\n', CHECKS)
    around = attrs.evolve(HERE, mail_leaves=False)
    [fault] = plan.make(Document(), parsed, around).faults
    assert "mail cannot leave: [submission.relay] names no next hop" in fault.text
    assert plan.make(Document(), parsed, around, force=True).faults == ()


def test_older_faults_of_the_directory_do_not_hinder(database: SQLiteDatabase) -> None:
    gone = StoredAddress(INFO, AddressKind.ALIAS, (Target("gone@example.test", is_account=False),))
    address_changes.add_address(database, ROOT, gone)
    assert faults_of(database, '[[user]]\nname = "zoe@example.test"\n') == []


NAMES = st.sampled_from([f"{letter}@example.test" for letter in "abcdef"])


@given(st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=4)))
@settings(max_examples=300, deadline=None)
def test_loops_are_found_where_a_walk_comes_back(ways: dict[str, list[str]]) -> None:
    addresses = {
        name: StoredAddress(name, AddressKind.GROUP, tuple(Target(each, is_account=False) for each in targets))
        for name, targets in ways.items()
    }

    def reaches(start: str) -> bool:
        seen: set[str] = set()
        left = list(ways[start])
        while left:
            name = left.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                left += ways.get(name, [])
        return False

    found = [each for each in find_faults(Names((), addresses, {}, {"example.test"})) if each.sort is Sort.LOOP]
    looping = {name for name in ways if reaches(name)}
    assert {each.address for each in found} <= looping
    assert bool(found) is bool(looping)


def findings(*addresses: StoredAddress, domains: tuple[StoredDomain, ...] = ()) -> list[Finding]:
    names = Names(
        {ANNA}, {each.name: each for each in addresses}, {each.name: each for each in domains}, {"example.test"}
    )
    return list(find_faults(names))


def group(name: str, *targets: str, enabled: bool = True) -> StoredAddress:
    return StoredAddress(
        name, AddressKind.GROUP, tuple(Target(each, is_account=each == ANNA) for each in targets), enabled
    )


def test_targets_are_followed_as_mail_is() -> None:
    """By details, domains that stand for others, and the catch-all."""
    assert findings(group(INFO, "Anna+x@example.test".lower())) == []
    alias = StoredDomain("example.com", "example.test")
    assert findings(group(INFO, "anna@example.com"), domains=(alias,)) == []
    assert [each.sort for each in findings(group(INFO, "bert@example.com"), domains=(alias,))] == [Sort.GONE]
    assert findings(group(INFO, "any@example.test"), group("@example.test", ANNA)) == []
    loop = findings(group(INFO, f"{'info+x'}@example.test"))
    assert [each.sort for each in loop] == [Sort.LOOP]


def test_what_is_disabled_empty_too_deep_or_too_large() -> None:
    assert {each.sort for each in findings(group(INFO, ALL), group(ALL, ANNA, enabled=False))} == {Sort.DISABLED}
    assert [each.sort for each in findings(group(INFO))] == [Sort.EMPTY]
    chain = [group(f"c{number}@example.test", f"c{number + 1}@example.test") for number in range(11)]
    assert findings(*chain[:10], group("c10@example.test", ANNA)) == []
    [deep] = findings(*chain, group("c11@example.test", ANNA))
    assert (deep.address, deep.sort) == ("c0@example.test", Sort.LOOP)
    [large] = findings(group(ALL, *(f"x{number}@elsewhere.test" for number in range(50_000))))
    assert re.search(r"50000 targets, .* more than 1000", large.text)


def test_very_many_targets_are_written_and_read(database: SQLiteDatabase) -> None:
    count = sweeps.choose(10_000, whole=50_000)
    targets = tuple(Target(f"x{number}@elsewhere.test", is_account=False, may_send=False) for number in range(count))
    address_changes.add_address(database, ROOT, StoredAddress(ALL, AddressKind.GROUP, targets))
    text = text_of(applying.load(database))
    assert plan_of(database, text, delete=True).steps == ()
    shorter = text.replace('  "x7@elsewhere.test",\n', "")
    [step] = plan_of(database, shorter, delete=True).steps
    assert step.words() == "loses x7@elsewhere.test"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_any_text_is_written_so_that_it_is_read(note: str, full_name: str) -> None:
    document = Document(
        users={ANNA: User(ANNA, full_name=full_name)},
        addresses={INFO: StoredAddress(INFO, AddressKind.ALIAS, (Target(ANNA),), note=note)},
    )
    found = parse(text_of(document), CHECKS).document
    assert found.addresses == document.addresses
    assert found.users == document.users


def app_passwords(database: SQLiteDatabase) -> dict[str, AppPassword]:
    return {each.label: each for each in credentials.app_passwords(database, ANNA)}


def recorded(database: SQLiteDatabase, since: int) -> list[tuple[str, str]]:
    return [
        (each.what, str(each.facts.get("label"))) for each in reading.changes(database, since) if "label" in each.facts
    ]


def test_app_passwords_work_in_another_directory(database: SQLiteDatabase, tmp_path: Path) -> None:
    fill(database)
    other = SQLiteDatabase.create(tmp_path / "other.db")
    text = text_of(applying.load(database))
    assert digest("phone") in text
    apply(other, text)
    for label, each in app_passwords(database).items():
        found = credentials.find_app_password(other, digest(label))
        assert found is not None
        copied = app_passwords(other)[label]
        assert attrs.evolve(copied, id="") == attrs.evolve(each, id="")
        assert copied.scram["SHA-256"].parameters == credentials.shared_parameters(other, ANNA)["SHA-256"]
    assert recorded(other, 0) == [("app password added", "phone"), ("app password added", "printer")]
    assert plan_of(other, text, delete=True).steps == ()


def table_of(text: str, label: str) -> str:
    """The table of an app password in a document."""
    return next(each for each in re.split(r"(?m)^(?=\[\[)", text) if f'label = "{label}"' in each)


def test_a_plan_names_app_passwords_by_their_labels(database: SQLiteDatabase) -> None:
    fill(database)
    text = text_of(applying.load(database))
    phone = table_of(text, "phone")
    wanted = (
        text.replace(phone, phone.replace('"phone"', '"tablet"'))
        .replace('id = "', 'id = "x')
        .replace(
            table_of(text, "printer"), f'[[app_password]]\nuser = "{ANNA}"\nlabel = "printer"\nprotocols = ["pop3"]\n'
        )
    )
    before = app_passwords(database)
    since = reading.identity(database)[1]
    made = apply(database, wanted, delete=True)
    assert {(step.action.value, step.name): step.words() for step in made.steps} == {
        ("remove", f"phone of {ANNA}"): "revoked",
        ("add", f"tablet of {ANNA}"): "for imap, until 2027-01-15 08:00 UTC",
        ("change", f"printer of {ANNA}"): "it works for pop3",
    }
    after = app_passwords(database)
    assert set(after) == {"tablet", "printer"}
    assert after["printer"] == attrs.evolve(before["printer"], protocols=frozenset({"pop3"}))
    found = credentials.find_app_password(database, digest("phone"))
    assert found is not None
    assert found[0].label == "tablet"
    # Sessions end where the password is gone or works for other protocols.
    assert sorted(recorded(database, since)) == [
        ("app password added", "printer"),
        ("app password added", "tablet"),
        ("app password revoked", "phone"),
        ("app password revoked", "printer"),
    ]


def test_sessions_go_on_where_an_app_password_works_longer(database: SQLiteDatabase) -> None:
    fill(database)
    since = reading.identity(database)[1]
    text = (
        text_of(applying.load(database), secrets=False).replace("1800000000", "1900000000").replace('id = "', 'id = "x')
    )
    made = apply(database, text)
    assert [step.words() for step in made.steps if step.kind == "app_password"] == [
        "it works until 2030-03-17 17:46 UTC"
    ]
    assert recorded(database, since) == [("app password changed", "phone")]
    assert credentials.find_app_password(database, digest("phone")) is not None


def test_an_app_password_without_a_digest_is_made_nowhere(database: SQLiteDatabase, tmp_path: Path) -> None:
    fill(database)
    text = text_of(applying.load(database), secrets=False)
    assert plan_of(database, text, delete=True).steps == ()
    other = SQLiteDatabase.create(tmp_path / "other.db")
    made = apply(other, text)
    assert f"the app password phone of {ANNA} is left out: without its digest none can be made" in made.notes
    assert app_passwords(other) == {}


def test_another_salt_of_the_main_password_takes_the_keys_of_older_app_passwords(database: SQLiteDatabase) -> None:
    fill(database)
    text = f'[[user]]\nname = "{ANNA}"\npassword = "{{PLAIN}}y"\nscram_sha256 = "4096,b3RoZXI=,eA==,eQ=="\n'
    made = apply(database, text)
    assert [step.words() for step in made.steps if step.kind == "app_password"] == ["no SCRAM keys any more"] * 2
    assert [each.scram for each in app_passwords(database).values()] == [{}, {}]
    assert credentials.find_app_password(database, digest("phone")) is not None


APP = f'[[app_password]]\nuser = "{ANNA}"\nlabel = "x"\ndigest = "{"1" * 64}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (APP.replace(ANNA, "nobody"), "line 1: the app password x of nobody: there is no such user"),
        (APP.replace("1" * 64, digest("phone")), f"the app password x of {ANNA} is the same as phone of {ANNA}"),
        (APP + APP.replace('"x"', '" X "').replace("X", "x"), f"line 5: the app password [x of {ANNA}] has a name that line 1 has"),
        (APP.replace("1" * 64, "1" * 63), "digest must be a SHA-256"),
        (APP.replace("1" * 64, "A" * 64), "digest must be a SHA-256"),
        (APP.replace('"x"', '" "'), "a label has 1 to 60 printable characters"),
        (APP + 'scram_sha256 = "4096,b3RoZXI=,eA==,eQ=="\n', "have not the rounds and salt of the user's other SCRAM keys"),
        (APP.replace("digest", "# ") + 'scram_sha256 = "4096,b3RoZXI=,eA==,eQ=="\n', "SCRAM keys without the digest"),
        ("".join(APP.replace('"x"', f'"x{n}"').replace("1" * 64, digest(str(n))) for n in range(31)),
         f"{ANNA} would have 33 app passwords, and the most are 32"),
        (APP + "expires = -1\n", "a time is a number of seconds since 1970"),
        (APP + "expires = 2027-06-30\n", "expires must be a whole number, of seconds since 1970"),
    ],
    ids=["user", "same", "twice", "short", "capitals", "label", "salt", "keys", "many", "expires", "date"],
)  # fmt: skip
def test_faults_of_app_passwords(database: SQLiteDatabase, text: str, said: str) -> None:
    fill(database)
    assert any(said in fault for fault in faults_of(database, text)), faults_of(database, text)
