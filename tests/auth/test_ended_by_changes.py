"""Every kind of change of a directory, and the sessions that it ends; rows that cannot be read, and looks that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import attrs
import pytest

from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.ended_sessions import EndedSessions, OpenSession
from mailserver.directory import address_changes, applying, changing, credentials, delegates, plan, reading
from mailserver.directory.changing import Author
from mailserver.directory.credentials import AppPassword
from mailserver.directory.delegates import StoredDelegate
from mailserver.directory.document import Document
from mailserver.directory.document_parse import Parsed
from mailserver.directory.model import (
    AccountLimits,
    AddressKind,
    DirectoryUnavailable,
    NewAccount,
    Password,
    State,
    StoredAddress,
    StoredDomain,
    Target,
)
from mailserver.directory.plan import Surroundings
from mailserver.directory.sqlite import SQLiteDatabase

NOW = 1_790_000_000
ROOT = Author("root", NOW)
ANNA, BEN, ADMIN, CARLA = "anna@a.test", "ben@a.test", "admin@b.test", "carla@a.test"
INFO = StoredAddress("info@a.test", AddressKind.ALIAS, (Target(ANNA), Target(BEN)))
HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.1")
SESSIONS = {
    "main": OpenSession(ANNA, "imap", HERE),
    "abroad": OpenSession(ANNA, "imap", THERE),
    "pop3": OpenSession(ANNA, "pop3", HERE),
    "phone": OpenSession(ANNA, "imap", HERE, "phone"),
    "by-admin": OpenSession(ANNA, "imap", HERE, delegate=ADMIN),
    "ben": OpenSession(BEN, "imap", HERE),
    "ben-by-admin": OpenSession(BEN, "imap", HERE, delegate=ADMIN),
    "admin": OpenSession(ADMIN, "imap", HERE),
    "elsewhere": OpenSession("erika@c.test", "imap", HERE),
}
OF_ANNA = {"main", "abroad", "pop3", "phone", "by-admin"}


class World:
    def __init__(self, path: Path) -> None:
        self.wall = float(NOW)
        self.now = 100.0
        self.path = path
        self.directory = SQLiteDatabase.create(path)
        for name in (ANNA, BEN, ADMIN):
            changing.add_account(self.directory, ROOT, NewAccount(name, Password("{PLAIN}x")))
        self.backend = self.new_backend()

    def new_backend(self) -> DirectoryBackend:
        made = DirectoryBackend(self.path, DirectHasher(), lambda: self.now, lambda: self.wall)
        assert made.changed_users() == frozenset()
        return made

    def add_phone(self, expires: int | None = None) -> None:
        new = AppPassword("phone", ANNA, "phone", expires=expires)
        credentials.add_app_password(self.directory, ROOT, new, "of the phone", {})

    def allow(self, over: str, expires: int | None = None) -> None:
        delegates.put_delegate(self.directory, ROOT, StoredDelegate(ADMIN, over, expires, ""))

    def limit(self, **values: Any) -> None:
        changing.set_limits(self.directory, ROOT, ANNA, AccountLimits(**values))

    def limit_domain(self, **values: Any) -> None:
        address_changes.change_domain(self.directory, ROOT, "a.test", limits=AccountLimits(**values).text())

    def apply(self, edit: Callable[[Document], object]) -> None:
        before, wanted = applying.load(self.directory), applying.load(self.directory)
        edit(wanted)
        made = plan.make(before, Parsed(wanted, (), {}), Surroundings(domains=("a.test", "b.test")), delete=True)
        assert made.faults == ()
        applying.apply(self.directory, ROOT, made.steps, (before.id, before.serial or 0))

    def ended(self) -> set[str]:
        return ended_by(self.backend.changed_users())


def ended_by(changed: ChangedUsers | None) -> set[str]:
    ended = EndedSessions(changed)
    return {name for name, session in SESSIONS.items() if ended.includes(session)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "directory.db")
    yield made
    made.directory.close()


def domain(limits: str = "{}") -> StoredDomain:
    return StoredDomain("a.test", limits=limits)


def with_domain(world: World) -> None:
    address_changes.add_domain(world.directory, ROOT, domain())


def with_limits_of_both(world: World) -> None:
    address_changes.add_domain(world.directory, ROOT, domain('{"networks":["192.0.2.0/24"],"protocols":["imap"]}'))
    world.limit(networks=("0.0.0.0/0",), protocols=("imap", "pop3"))


def with_info(world: World) -> None:
    address_changes.add_address(world.directory, ROOT, INFO)


def nothing(_world: World) -> None:
    pass


def put_user(world: World, **values: Any) -> None:
    world.apply(lambda document: document.users.update({ANNA: attrs.evolve(document.users[ANNA], **values)}))


def rename_with_later_limits(world: World) -> None:
    world.limit(networks=("192.0.2.0/24",))
    changing.rename(world.directory, ROOT, ANNA, CARLA)


LIMITED = AccountLimits(networks=("192.0.2.0/24",)).text()

CASES: dict[str, tuple[Callable[[World], object], Callable[[World], object], set[str]]] = {
    # accounts
    "account added": (nothing, lambda w: changing.add_account(w.directory, ROOT, NewAccount(CARLA)), set()),
    "accounts imported": (nothing, lambda w: changing.import_accounts(w.directory, ROOT, [NewAccount(CARLA)]), set()),
    "account disabled": (nothing, lambda w: changing.set_state(w.directory, ROOT, ANNA, State.DISABLED), OF_ANNA),
    "delegate's account disabled": (
        nothing,
        lambda w: changing.set_state(w.directory, ROOT, ADMIN, State.DISABLED),
        {"admin", "by-admin", "ben-by-admin"},
    ),
    "account enabled": (
        lambda w: changing.set_state(w.directory, ROOT, ANNA, State.DISABLED),
        lambda w: changing.set_state(w.directory, ROOT, ANNA, State.ACTIVE),
        set(),
    ),
    "account renamed": (nothing, lambda w: changing.rename(w.directory, ROOT, ANNA, CARLA), OF_ANNA),
    "account limited and renamed": (nothing, rename_with_later_limits, OF_ANNA),
    "account deleted": (nothing, lambda w: changing.delete(w.directory, ROOT, ANNA), OF_ANNA),
    "home changed": (nothing, lambda w: put_user(w, home="/srv/anna"), OF_ANNA),
    "full name changed": (nothing, lambda w: put_user(w, full_name="Anna B."), set()),
    "directory restored": (nothing, lambda w: changing.mark_restored(w.directory, ROOT), set(SESSIONS)),
    # credentials
    "password changed": (
        nothing,
        lambda w: changing.set_password(w.directory, ROOT, ANNA, Password("{PLAIN}y")),
        {"main", "abroad", "pop3"},
    ),
    "delegate's password changed": (
        nothing,
        lambda w: changing.set_password(w.directory, ROOT, ADMIN, Password("{PLAIN}y")),
        {"admin", "by-admin", "ben-by-admin"},
    ),
    "protocols of the password changed": (
        nothing,
        lambda w: changing.set_main_protocols(w.directory, ROOT, ANNA, frozenset({"imap"})),
        {"pop3"},
    ),
    "app password added": (nothing, World.add_phone, set()),
    "app password revoked": (
        World.add_phone,
        lambda w: credentials.revoke(w.directory, ROOT, ANNA, "phone"),
        {"phone"},
    ),
    # limits of an account
    "limits of mail": (nothing, lambda w: w.limit(storage=10), set()),
    "networks": (nothing, lambda w: w.limit(networks=("192.0.2.0/24",)), {"abroad"}),
    "protocols": (nothing, lambda w: w.limit(protocols=("imap",)), {"pop3"}),
    "wider limits": (lambda w: w.limit(protocols=("imap",)), lambda w: w.limit(), set()),
    "no own limits: those of the domain hold": (with_limits_of_both, lambda w: w.limit(), {"abroad", "pop3"}),
    # domains
    "domain added": (nothing, lambda w: address_changes.add_domain(w.directory, ROOT, domain(LIMITED)), {"abroad"}),
    "domain changed: networks": (with_domain, lambda w: w.limit_domain(networks=("192.0.2.0/24",)), {"abroad"}),
    "domain changed: protocols": (with_domain, lambda w: w.limit_domain(protocols=("imap",)), {"pop3"}),
    "domain changed: detail": (
        with_domain,
        lambda w: address_changes.change_domain(w.directory, ROOT, "a.test", detail="-"),
        set(),
    ),
    # It gets no mail; its users may fetch what they have.
    "domain changed: disabled": (
        with_domain,
        lambda w: address_changes.change_domain(w.directory, ROOT, "a.test", enabled=False),
        set(),
    ),
    "domain removed": (
        lambda w: address_changes.add_domain(w.directory, ROOT, domain(LIMITED)),
        lambda w: address_changes.remove_domain(w.directory, ROOT, "a.test"),
        set(),
    ),
    # delegates
    "delegate added": (nothing, lambda w: w.allow(ANNA), set()),
    "delegate changed": (lambda w: w.allow(ANNA), lambda w: w.allow(ANNA, NOW + 9), set()),
    "delegate changed: expired": (lambda w: w.allow(ANNA), lambda w: w.allow(ANNA, NOW - 9), {"by-admin"}),
    "delegate of a domain changed: expired": (
        lambda w: w.allow("a.test"),
        lambda w: w.allow("a.test", NOW - 9),
        {"by-admin", "ben-by-admin"},
    ),
    "delegate removed": (
        lambda w: w.allow(ANNA),
        lambda w: delegates.remove_delegate(w.directory, ROOT, ADMIN, ANNA),
        {"by-admin"},
    ),
    "delegate of a domain removed": (
        lambda w: w.allow("a.test"),
        lambda w: delegates.remove_delegate(w.directory, ROOT, ADMIN, "a.test"),
        {"by-admin", "ben-by-admin"},
    ),
    # addresses
    "alias added": (nothing, with_info, set()),
    "alias replaced": (with_info, lambda w: address_changes.replace_address(w.directory, ROOT, INFO), set()),
    "alias extended": (
        with_info,
        lambda w: address_changes.add_targets(w.directory, ROOT, INFO.name, [Target(ADMIN)]),
        set(),
    ),
    "alias reduced": (
        with_info,
        lambda w: address_changes.remove_targets(w.directory, ROOT, INFO.name, [ANNA]),
        set(),
    ),
    "alias disabled": (
        with_info,
        lambda w: address_changes.set_address_enabled(w.directory, ROOT, INFO.name, enabled=False),
        set(),
    ),
    "alias removed": (with_info, lambda w: address_changes.remove_address(w.directory, ROOT, INFO.name), set()),
    # the same by a document
    "document: nothing that concerns anybody": (
        nothing,
        lambda w: w.apply(lambda d: d.users.update({CARLA: attrs.evolve(d.users[ANNA], name=CARLA)})),
        set(),
    ),
    "document: password": (nothing, lambda w: put_user(w, password=Password("{PLAIN}y")), {"main", "abroad", "pop3"}),
    "document: disabled": (nothing, lambda w: put_user(w, state=State.DISABLED), OF_ANNA),
    "document: deleted": (nothing, lambda w: w.apply(lambda d: d.users.pop(ANNA)), OF_ANNA),
    "document: limits": (nothing, lambda w: put_user(w, limits=AccountLimits(protocols=("imap",))), {"pop3"}),
    "document: protocols of the password": (
        nothing,
        lambda w: put_user(w, password_protocols=frozenset({"imap"})),
        {"pop3"},
    ),
    "document: limits of a domain": (
        with_domain,
        lambda w: w.apply(lambda d: d.domains.update({"a.test": domain(LIMITED)})),
        {"abroad"},
    ),
    "document: new domain with limits": (
        nothing,
        lambda w: w.apply(lambda d: d.domains.update({"a.test": domain(LIMITED)})),
        {"abroad"},
    ),
    "document: domain removed": (with_domain, lambda w: w.apply(lambda d: d.domains.clear()), set()),
    "document: delegate removed": (
        lambda w: w.allow(ANNA),
        lambda w: w.apply(lambda d: d.delegates.clear()),
        {"by-admin"},
    ),
    "document: delegate expired": (
        lambda w: w.allow(ANNA),
        lambda w: w.apply(
            lambda d: d.delegates.update({(ADMIN, ANNA): attrs.evolve(d.delegates[ADMIN, ANNA], expires=NOW - 9)})
        ),
        {"by-admin"},
    ),
    "document: alias": (
        nothing,
        lambda w: w.apply(lambda d: d.addresses.update({INFO.name: INFO})),
        set(),
    ),
    # time alone
    "app password expired": (
        lambda w: w.add_phone(NOW + 60),
        lambda w: setattr(w, "wall", NOW + 60.0),
        {"phone"},
    ),
    "delegate expired": (lambda w: w.allow(ANNA, NOW + 60), lambda w: setattr(w, "wall", NOW + 60.0), {"by-admin"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_ends_the_sessions_that_it_concerns(world: World, case: str) -> None:
    prepare, change, expected = CASES[case]
    prepare(world)
    world.ended()
    assert world.ended() == set()
    change(world)
    assert world.ended() == expected
    assert world.ended() == set(), "once"


def test_every_kind_of_change_is_tried(world: World) -> None:
    kinds = {
        value
        for module in (changing, credentials, delegates, address_changes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    recorded = set()
    for number, (prepare, change, _expected) in enumerate(CASES.values()):
        each = World(world.path.with_name(f"{number}.db"))
        prepare(each)
        change(each)
        recorded |= {row.what for row in reading.changes(each.directory, 0)}
        each.directory.close()
    assert recorded >= kinds
    assert {what for what in recorded if what.startswith("alias")} == {
        f"alias {verb}" for verb in ("added", "replaced", "extended", "reduced", "disabled", "removed")
    }


def test_a_change_of_many_rows_is_read_to_its_end(world: World) -> None:
    names = [f"user{number:04}@a.test" for number in range(1203)]
    changing.import_accounts(world.directory, ROOT, [NewAccount(name) for name in names])
    assert world.ended() == set()

    def disable(document: Document) -> None:
        for name in [*names, ANNA]:
            document.users[name] = attrs.evolve(document.users[name], state=State.DISABLED)

    world.apply(disable)
    changed = world.backend.changed_users()
    assert changed == {*names, ANNA}


DAMAGE = {
    "words-for-facts": 'facts = \'{"domain":"a.test","changed":"limits {} become {}"}\', what = \'home changed\'',
    "no-json": "facts = 'limits become narrower'",
    "a-list": "facts = '[]'",
    "blob": "facts = x'ff00'",
    "deep": f"facts = '{'[' * 100_000}'",
    "no-credential": "what = 'app password revoked', facts = '{}'",
    "no-over": "what = 'delegate removed', facts = '{\"over\":5}'",
    "unknown-kind": "what = 'moon changed', facts = '{}'",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_row_that_cannot_be_read_ends_all_sessions_once(
    world: World, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    changing.set_state(world.directory, ROOT, BEN, State.DISABLED)
    with_info(world)
    world.directory.change(f"UPDATE change SET account = '', {DAMAGE[damage]} WHERE serial = (SELECT serial FROM meta)")
    assert world.backend.changed_users() is None
    assert world.backend.changed_users() == frozenset()
    assert "all sessions end" in caplog.text
    changing.set_state(world.directory, ROOT, ANNA, State.DISABLED)
    assert world.ended() == OF_ANNA


def test_a_document_with_limits_of_a_domain_as_older_releases_recorded_it(world: World) -> None:
    with_domain(world)
    assert world.ended() == set()
    world.limit_domain(networks=("192.0.2.0/24",))
    changing.set_state(world.directory, ROOT, BEN, State.DISABLED)
    world.directory.change(
        'UPDATE change SET facts = \'{"domain":"a.test","changed":"limits {} become x"}\' WHERE what = \'domain changed\''
    )
    assert world.ended() == {"abroad", "ben", "ben-by-admin"}


def test_an_account_whose_row_cannot_be_used_loses_its_sessions_alone(world: World) -> None:
    world.limit(networks=("0.0.0.0/0",))
    assert world.ended() == set()
    world.limit(networks=("192.0.2.0/24",))
    world.directory.change(f"UPDATE account SET limits = '[]' WHERE serial = {reading.identity(world.directory)[1]}")
    assert world.ended() == OF_ANNA


def test_a_domain_whose_row_cannot_be_used_loses_the_sessions_of_its_users(world: World) -> None:
    address_changes.add_domain(world.directory, ROOT, domain())
    assert world.ended() == set()
    world.limit_domain(networks=("0.0.0.0/0",))
    world.directory.change("UPDATE domain SET limits = '[]'")
    assert world.ended() == (OF_ANNA - {"by-admin"}) | {"ben"}


def test_a_look_that_fails_is_made_again_from_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    changing.set_state(world.directory, ROOT, ANNA, State.DISABLED)
    for error in (RuntimeError("a fault of ours"), DirectoryUnavailable("locked")):

        def fail(*_arguments: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(reading, "changes", fail)
            if isinstance(error, RuntimeError):
                broken.setattr(reading, "oldest_change", fail)
                with pytest.raises(RuntimeError):
                    world.backend.changed_users()
            else:
                assert world.backend.changed_users() == frozenset()
        world.now += 1
    assert world.ended() == OF_ANNA


def test_no_number_of_app_passwords_is_too_many(world: World) -> None:
    with world.directory.writing():
        world.directory.change(
            """INSERT INTO credential (id, account, kind, label, secret, probe, expires, created, made_by)
            WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
            SELECT 'c' || i, (SELECT account FROM target WHERE address = :anna), 'app', i, '', 'p' || i,
                   :expires, 0, '' FROM n""",
            anna=ANNA,
            expires=NOW + 1000,
        )
    for number in range(12_001):
        assert world.backend.find_app_password(f"p{number}") is not None
    world.directory.change("UPDATE credential SET id = 'phone', expires = :soon WHERE id = 'c11999'", soon=NOW + 60)
    assert world.ended() == set()
    world.wall = NOW + 60.0
    assert world.ended() == {"phone"}


def test_the_first_open_directory_is_where_the_looks_begin(world: World) -> None:
    aside = world.path.with_name("aside.db")
    world.path.rename(aside)
    backend = world.new_backend()
    aside.rename(world.path)
    world.now += 1
    assert backend.find_user(ANNA) is not None, "somebody is let in before the next look"
    changing.set_state(world.directory, ROOT, ANNA, State.DISABLED)
    assert backend.changed_users() == {ANNA}


def test_another_history_of_the_same_directory_concerns_anybody(world: World) -> None:
    """As where a copy that went on elsewhere was written into the file."""
    assert world.ended() == set()
    serial = reading.identity(world.directory)[1]
    world.directory.change(f"UPDATE change SET who = 'somebody else' WHERE serial = {serial}")
    changing.set_limits(world.directory, ROOT, BEN, AccountLimits(storage=5))
    assert world.backend.changed_users() is None
    assert world.backend.changed_users() == frozenset()
