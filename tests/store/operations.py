"""The operations of the store, one by one, with what each begins from: for tests in which the disk fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from mailserver.errors import MailError, MessageExpunged
from mailserver.store.flags import FlagChange
from mailserver.store.interfaces import Account
from mailserver.store.receiving import Appended, Delivery, NewMessage
from tests.store.decisions import ALWAYS
from tests.store.disk import INDEX_FILES, USER, open_store
from tests.store.workload import find, observe, source, stage

Act = Callable[[Account, dict[str, Any]], object]


class Refused(Exception):
    """A part was refused; `done` are the subjects that were acknowledged all the same."""

    def __init__(self, done: Sequence[str]) -> None:
        super().__init__()
        self.done = done


@frozen
class Operation:
    """One command. `way` "each": messages are whole or absent one by one; "back": so where the disk fails for good, so
    that they cannot be put back; "told": only what it tells must last.
    """

    name: str
    run: Act = field(eq=False, repr=False)
    before: Act = field(default=lambda _account, _held: None, eq=False, repr=False)
    """On a disk that is well."""
    way: Literal["whole", "each", "back", "told", "forgotten"] = "whole"
    base: str = "usual"
    idempotent: bool = False
    """Done twice it is as done once."""


# --- the operations


def _append(name: str, *subjects: str, flags: Sequence[str] = ()) -> Act:
    def run(account: Account, _held: dict[str, Any]) -> None:
        messages: list[NewMessage] = []
        try:
            messages += [stage(account, subject, *flags) for subject in subjects]
            account.append(name, messages)
        except BaseException:
            # As the protocols do.
            for new in messages:
                new.staged.abort()
            raise

    return run


def _deliver(*wanted: tuple[str, str]) -> Act:
    def run(account: Account, held: dict[str, Any]) -> None:
        # As an MTA does, which tries again what was refused.
        done = held.setdefault("delivered", [])
        left = [each for each in wanted if each[1] not in done]
        outcomes = account.deliver([Delivery(name, [stage(account, subject)]) for name, subject in left])
        for outcome in outcomes:
            if not isinstance(outcome, Appended | MailError):
                raise outcome
        done += [word for (_, word), got in zip(left, outcomes, strict=True) if isinstance(got, Appended)]
        if len(done) < len(wanted):
            raise Refused(done)

    return run


def _store(name: str, how: FlagChange, flags: Sequence[str], *subjects: str) -> Act:
    def run(account: Account, held: dict[str, Any]) -> None:
        mailbox, uids = held["found"]
        stored = mailbox.store_flags(uids, how, flags)
        assert not stored.gone, "a message that is there is not gone"

    return run


_WORDS = [f"word{number}" for number in range(30)]


def _with_words(account: Account, held: dict[str, Any]) -> None:
    _finding("INBOX", "one", "two")(account, held)
    _store("INBOX", FlagChange.ADD, _WORDS)(account, held)
    # The target has other numbers for them.
    _append("z", "other", flags=_WORDS[::-1])(account, held)


def _finding(name: str, *subjects: str) -> Act:
    def before(account: Account, held: dict[str, Any]) -> None:
        held["found"] = find(account, name, *subjects)

    return before


def _transfer(method: str, target: str) -> Act:
    def run(_account: Account, held: dict[str, Any]) -> None:
        mailbox, uids = held["found"]
        copied = getattr(mailbox, method)(uids, target)
        assert len(copied.source) in {0, len(uids)}
        if not copied.source:
            # A move that could not be taken back has been finished.
            raise MessageExpunged

    return run


def _expunge(_account: Account, held: dict[str, Any]) -> None:
    mailbox, uids = held["found"]
    mailbox.expunge(uids, only_deleted=False)


def _replace(target: str, *flags: str) -> Act:
    def run(account: Account, held: dict[str, Any]) -> None:
        mailbox, [uid] = held["found"]
        new = stage(account, "new1", *flags)
        try:
            mailbox.replace(uid, target, new)
        except BaseException:
            new.staged.abort()
            raise

    return run


def _prepare_with(token: str) -> Act:
    def prepare(account: Account, held: dict[str, Any]) -> None:
        new = stage(account, "prepared")
        try:
            held["prepared"] = account.prepare("a/b", [new], token)
        except BaseException:
            new.staged.abort()
            raise

    return prepare


_prepare = _prepare_with("")


def _publish(_account: Account, held: dict[str, Any]) -> None:
    held["prepared"].publish()


def _abort(_account: Account, held: dict[str, Any]) -> None:
    held["prepared"].abort()


def _prepare_and_publish(account: Account, held: dict[str, Any]) -> None:
    _prepare(account, held)
    with contextlib.suppress(MailError):
        # Acknowledged all the same: it must be there.
        held["prepared"].publish()


def _send_again(account: Account, held: dict[str, Any]) -> None:
    """The first one was refused elsewhere; the sender has it sent once more, and is told that it is accepted."""
    held["prepared"].abort()
    _prepare_and_publish(account, held)


def _drop_index(account: Account, _held: dict[str, Any]) -> None:
    account.close()
    for name in INDEX_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(account.root, name))  # type: ignore[attr-defined]


def _look(account: Account, held: dict[str, Any]) -> None:
    held["told"] = observe(account)


def foreign_mail(account: Account, _held: dict[str, Any]) -> None:
    for number, place in enumerate(("new", "cur")):
        name = f"170000000{number}.M1P1.other" + (":2,S" if place == "cur" else "")
        with open(os.path.join(account.root, place, name), "wb") as file:  # type: ignore[attr-defined]
            file.write(source(f"foreign{number}"))


def _subscribe(name: str, *, subscribed: bool = True) -> Act:
    return lambda account, _held: account.set_subscribed(name, subscribed=subscribed)


def _annotate(name: str, changes: Mapping[str, bytes]) -> Act:
    return lambda account, _held: account.annotate(name, changes, 10)


def _nothing(_account: Account, _held: dict[str, Any]) -> None:
    """The opening of the account is the operation."""


OPERATIONS: tuple[Operation, ...] = (
    Operation("append one", _append("INBOX", "new1")),
    Operation("append a group", _append("INBOX", "new1", "new2", "new3")),
    Operation("append with a new keyword", _append("INBOX", "new1", flags=["\\Seen", "$Fresh"])),
    Operation("deliver one", _deliver(("INBOX", "new1"))),
    Operation("deliver several", _deliver(("INBOX", "new1"), ("a/b", "new2"), ("INBOX", "new3")), way="each"),
    Operation(
        "store",
        _store("INBOX", FlagChange.ADD, ["\\Flagged"]),
        _finding("INBOX", "one", "two", "three"),
        "back",
        idempotent=True,
    ),
    Operation(
        "store a new keyword",
        _store("INBOX", FlagChange.ADD, ["$Fresh"]),
        _finding("INBOX", "one", "two"),
        "back",
        idempotent=True,
    ),
    Operation(
        "store keywords beyond the letters",
        _store("INBOX", FlagChange.ADD, _WORDS),
        _finding("INBOX", "one", "two"),
        "back",
        idempotent=True,
    ),
    Operation("copy with keywords beyond the letters", _transfer("copy", "z"), _with_words),
    Operation("expunge", _expunge, _finding("INBOX", "one", "three"), way="each", idempotent=True),
    Operation("copy", _transfer("copy", "a/b"), _finding("INBOX", "one", "two")),
    Operation("copy with a keyword", _transfer("copy", "z"), _finding("INBOX", "two", "three")),
    Operation("move", _transfer("move", "a/b"), _finding("INBOX", "one", "two"), idempotent=True),
    Operation("move within", _transfer("move", "INBOX"), _finding("INBOX", "one", "two"), idempotent=True),
    Operation("replace", _replace("INBOX", "\\Draft"), _finding("INBOX", "two"), idempotent=True),
    Operation("replace elsewhere", _replace("a/b", "$Fresh"), _finding("INBOX", "one"), idempotent=True),
    Operation("create", lambda account, _held: account.create("n/m"), idempotent=True, way="each"),
    Operation("create with a use", lambda account, _held: account.create("n", frozenset({"\\Sent"})), idempotent=True),
    Operation("delete", lambda account, _held: account.delete("a/b"), idempotent=True),
    Operation("rename", lambda account, _held: account.rename("a", "n/m"), idempotent=True),
    Operation("rename INBOX", lambda account, _held: account.rename("INBOX", "old/mail"), idempotent=True),
    Operation(
        "annotate",
        _annotate("a/b", {"/private/x": b"2", "/shared/y": b"\xff"}),
        _annotate("a/b", {"/private/x": b"1"}),
        idempotent=True,
    ),
    Operation(
        "rename annotated INBOX",
        lambda account, _held: account.rename("INBOX", "old/mail"),
        _annotate("INBOX", {"/private/x": b"1"}),
        idempotent=True,
    ),
    Operation("subscribe", _subscribe("z"), idempotent=True),
    Operation("unsubscribe", _subscribe("a/b", subscribed=False), idempotent=True),
    Operation("local copy", _prepare_and_publish),
    Operation("publish", _publish, _prepare),
    Operation("abort", _abort, _prepare, "forgotten"),
    Operation("publish decided", _publish, _prepare_with(ALWAYS)),
    Operation("abort undecided", _abort, _prepare_with("undecided")),
    Operation("send again", _send_again, _prepare, "forgotten"),
    Operation("new account", _append("INBOX", "new1"), base="empty"),
    Operation("look at a foreign account", _look, _drop_index, way="told", base="foreign", idempotent=True),
    Operation("look at foreign mail", _look, foreign_mail, way="told", idempotent=True),
    Operation(
        "write the list anew",
        _expunge,
        _finding("many", *(f"m{n}" for n in range(90))),
        way="each",
        base="many",
        idempotent=True,
    ),
)


# --- where they begin


def make_base(root: str, which: str) -> None:
    """An account on a disk that is well."""
    os.makedirs(root)
    store = open_store(root)
    if which == "empty":
        return
    account = store.account(USER)
    _append("INBOX", "one", flags=["\\Seen"])(account, {})
    _append("INBOX", "two")(account, {})
    _append("INBOX", "three", flags=["$old"])(account, {})
    if which == "many":
        account.create("many")
        _append("many", *(f"m{n}" for n in range(100)))(account, {})
    for name in ("a/b", "a/c", "z"):
        account.create(name)
    _append("a/b", "x")(account, {})
    account.set_subscribed("a/b", subscribed=True)
    observe(account)
    account.close()
    if which == "foreign":
        for directory, _, files in os.walk(root):
            for name in files:
                if name in {"dovecot-uidlist", "maildirfolder"} or name.startswith(("mailserver-", "dovecot-uidval")):
                    os.unlink(os.path.join(directory, name))
