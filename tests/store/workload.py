"""A day in the life of an account, step by step, for tests that stop it at any moment.

`STEPS` are run on a store on disk and, for the expectations, on the model in memory. A step that was acknowledged must
be there after a crash; the one in flight is whole or absent, or, where `each` says so, whole or absent message by
message (STORE and EXPUNGE of many are no transactions in IMAP).
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from attrs import evolve, field, frozen

from mailserver.errors import NoSuchMailbox
from mailserver.message.render import summarise
from mailserver.store.flags import FlagChange
from mailserver.store.interfaces import Account, Mailbox
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.memory import MemoryStore
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.types import UID
from tests.store.decisions import decide
from tests.store.samples import content, flags

USER = "anna@example.test"
Kept = tuple[str, frozenset[str]]
"""Subject, flags."""


@frozen
class Box:
    """All that a client can see of one mailbox."""

    id: bytes
    validity: int
    uid_next: int
    messages: dict[int, Kept]
    annotations: Mapping[str, bytes] = field(factory=dict)


@frozen
class Picture:
    """All that a client can see of an account."""

    boxes: dict[str, Box]
    subscriptions: frozenset[str]

    def canonical(self) -> dict[str, list[Kept]]:
        """Without what differs from store to store: UIDs and identifiers. An annotation counts as a message of its own."""
        return {
            name: sorted([*box.messages.values(), *map(_as_kept, box.annotations.items())], key=repr)
            for name, box in self.boxes.items()
        }


def _as_kept(annotation: tuple[str, bytes]) -> Kept:
    entry, value = annotation
    return f"{entry} {value!r}", frozenset({"annotation"})


@frozen
class Step:
    """One command. `way` says what may be seen when it was cut off."""

    name: str
    way: Literal["whole", "each", "names"]
    run: Callable[[Account, dict[str, Any]], None] = field(eq=False)


class Violation(AssertionError):
    """A promise of the store is broken."""


def source(subject: str) -> bytes:
    """A message that shows whether it is whole."""
    return f"From: a@example.test\r\nSubject: {subject}\r\n\r\n".encode() + f"{subject} ".encode() * 100 + b"\r\n"


def stage(account: Account, subject: str, *names: str) -> NewMessage:
    staged = account.stage()
    staged.write(source(subject))
    return NewMessage(staged, frozenset(names), 1_000_000_000)


def stage_copy(account: Account, subject: str) -> NewMessage:
    """As `stage`, but its end comes from a file."""
    staged = account.stage()
    data = source(subject)
    staged.write(data[:100])
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + data[100:])
        file.flush()
        staged.copy(file.fileno(), 6, len(data) - 100)
    return NewMessage(staged, frozenset(), 1_000_000_000)


def find(account: Account, name: str, *subjects: str) -> tuple[Mailbox, list[UID]]:
    mailbox = account.mailbox(name)
    wanted = {source(subject) for subject in subjects}
    return mailbox, [row.uid for row in mailbox.load().rows if content(mailbox, row.uid) in wanted]


def observe(account: Account) -> Picture:
    """Everything, read as a client would. A message that is not whole, or cannot be opened, is a Violation."""
    boxes = {}
    for info in account.mailboxes():
        if not info.selectable:
            continue
        mailbox = account.mailbox(info.name)
        mailbox.refresh()
        status = account.status(info.name)
        messages = {}
        for uid, names in flags(mailbox).items():
            data = content(mailbox, uid)
            subject = data.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode("ascii", "replace")
            if data != source(subject):
                raise Violation(f"{info.name} UID {uid} is not whole: {data[:80]!r}")
            messages[uid] = (subject, frozenset(names))
        annotations = account.annotations(info.name)
        boxes[info.name] = Box(mailbox.id, status.uid_validity, status.uid_next, messages, annotations)
        if status.messages != len(messages):
            raise Violation(f"STATUS of {info.name} counts {status.messages} of {len(messages)}")
    return Picture(boxes, account.subscriptions())


def _append(name: str, *subjects: str, names: Collection[str] = ()) -> Callable[[Account, dict[str, Any]], None]:
    return lambda account, _held: _used(account.append(name, [stage(account, word, *names) for word in subjects]))


def _append_finished(name: str, *subjects: str) -> Callable[[Account, dict[str, Any]], None]:
    """The files of all but the last are synced and closed before."""

    def run(account: Account, _held: dict[str, Any]) -> None:
        messages = [stage(account, subject) for subject in subjects]
        for new in messages[:-1]:
            new.staged.finish(new.date)
        account.append(name, messages)

    return run


def _deliver(*wanted: tuple[str, str]) -> Callable[[Account, dict[str, Any]], None]:
    """Deliveries that meet, to (mailbox, subject), their ends copied; those to "nowhere" fail."""

    def run(account: Account, _held: dict[str, Any]) -> None:
        outcomes = account.deliver([Delivery(name, [stage_copy(account, subject)]) for name, subject in wanted])
        for (name, _subject), outcome in zip(wanted, outcomes, strict=True):
            assert isinstance(outcome, NoSuchMailbox if name == "nowhere" else Appended), outcome

    return run


def _used(_result: object) -> None:
    """A step's result is not looked at: only what is seen afterwards counts."""


def _store(
    name: str, subjects: Collection[str], how: FlagChange, names: Collection[str]
) -> Callable[[Account, dict[str, Any]], None]:
    def run(account: Account, _held: dict[str, Any]) -> None:
        mailbox, uids = find(account, name, *subjects)
        mailbox.store_flags(uids, how, names)

    return run


def _transfer(name: str, method: str, target: str, *subjects: str) -> Callable[[Account, dict[str, Any]], None]:
    def run(account: Account, _held: dict[str, Any]) -> None:
        mailbox, uids = find(account, name, *subjects)
        getattr(mailbox, method)(uids, target)

    return run


def _replace(name: str, subject: str, target: str, new: str, *names: str) -> Callable[[Account, dict[str, Any]], None]:
    def run(account: Account, _held: dict[str, Any]) -> None:
        mailbox, [uid] = find(account, name, subject)
        mailbox.replace(uid, target, stage(account, new, *names))

    return run


def _expunge(name: str, *subjects: str) -> Callable[[Account, dict[str, Any]], None]:
    def run(account: Account, _held: dict[str, Any]) -> None:
        mailbox, uids = find(account, name, *subjects)
        mailbox.expunge(uids, only_deleted=False)

    return run


def _prepare(account: Account, held: dict[str, Any]) -> None:
    held["prepared"] = account.prepare("z/b", [stage(account, "prepared1"), stage(account, "prepared2", "\\Seen")])


def _prepare_to_abort(account: Account, held: dict[str, Any]) -> None:
    held["aborted"] = account.prepare("INBOX", [stage(account, "aborted")])


def _prepare_with_token(account: Account, held: dict[str, Any]) -> None:
    held["decided"] = account.prepare("z/b", [stage(account, "token1"), stage(account, "token2", "\\Seen")], "yes")


def _decide(account: Account, _held: dict[str, Any]) -> None:
    if isinstance(account, MaildirAccount):
        # For all accounts of the store.
        decide(os.path.dirname(os.path.dirname(os.path.dirname(account.root))), "yes")


def _prepare_undecided(account: Account, held: dict[str, Any]) -> None:
    held["undecided"] = account.prepare("INBOX", [stage(account, "refused1"), stage(account, "refused2")], "no")


WAITING = {"prepare": "prepared", "prepare to abort": "aborted", "decide": "decided"}
"""Steps behind which messages are not seen yet, but would be after a crash."""
WORDS = [f"word{number}" for number in range(30)]
"""More than there are letters."""
NUMBERED = tuple(f"n{number}" for number in range(12))

STEPS: tuple[Step, ...] = (
    Step("append one", "whole", _append("INBOX", "one")),
    Step("append with flags", "whole", _append("INBOX", "flagged", names=["\\Flagged", "work"])),
    Step("append a group", "whole", _append_finished("INBOX", "g1", "g2", "g3")),
    Step("deliver several", "each", _deliver(("INBOX", "d1"), ("nowhere", "d2"), ("INBOX", "d3"))),
    Step("create", "names", lambda account, _held: _used(account.create("a/b"))),
    Step("store", "each", _store("INBOX", ["one", "g1", "g2"], FlagChange.ADD, ["\\Seen"])),
    Step("store a keyword", "each", _store("INBOX", ["g2", "g3"], FlagChange.REPLACE, ["$New", "work"])),
    Step("store more keywords", "each", _store("INBOX", ["flagged", "g3"], FlagChange.ADD, WORDS)),
    Step("copy", "whole", _transfer("INBOX", "copy", "a/b", "flagged", "g2")),
    Step("move", "whole", _transfer("INBOX", "move", "a/b", "g1", "g3", "one")),
    Step("append after the move", "whole", _append("INBOX", "after", names=["\\Seen"])),
    Step("expunge", "each", _expunge("INBOX", "g2", "after")),
    Step("subscribe", "whole", lambda account, _held: account.set_subscribed("a/b", subscribed=True)),
    Step("rename", "whole", lambda account, _held: account.rename("a", "z")),
    Step("annotate", "whole", lambda account, _held: _used(account.annotate("z/b", {"/private/x": b"1"}, 10))),
    Step("annotate again", "whole", lambda account, _held: _used(account.annotate("z/b", {"/private/x": b"2"}, 10))),
    Step("prepare", "whole", _prepare),
    Step("publish", "whole", lambda _account, held: _used(held["prepared"].publish())),
    Step("prepare to abort", "whole", _prepare_to_abort),
    Step("abort", "whole", lambda _account, held: held["aborted"].abort()),
    Step("prepare with a token", "whole", _prepare_with_token),
    Step("decide", "whole", _decide),
    Step("publish decided", "whole", lambda _account, held: _used(held["decided"].publish())),
    Step("prepare undecided", "whole", _prepare_undecided),
    Step("abort undecided", "whole", lambda _account, held: held["undecided"].abort()),
    Step("many", "whole", _append("z", *NUMBERED)),
    Step("expunge many", "each", _expunge("z", *NUMBERED[2:])),
    Step("append after many", "whole", _append("z", "last")),
    Step("move within", "whole", _transfer("z", "move", "z", "n0")),
    Step("replace within", "whole", _replace("z", "last", "z", "r1", "\\Draft")),
    Step("replace elsewhere", "whole", _replace("z", "r1", "INBOX", "r2")),
    Step("rename INBOX", "whole", lambda account, _held: account.rename("INBOX", "old/mail")),
    Step("append to the empty INBOX", "whole", _append("INBOX", "anew")),
    Step("delete", "whole", lambda account, _held: account.delete("z/b")),
    Step("delete a parent", "whole", lambda account, _held: account.delete("old")),
    Step("create again", "names", lambda account, _held: _used(account.create("z/b"))),
    Step("append where it was deleted", "whole", _append("z/b", "one")),
)


def expectations(steps: Collection[Step] = STEPS) -> list[Picture]:
    """What is seen before each step and after the last, by the model.

    What was prepared counts as seen, until it is aborted: after a crash the next holder of the lock publishes it. What
    has a token counts once that is decided.
    """
    account = MemoryStore(summarise).account(USER)
    pictures = [observe(account)]
    held: dict[str, Any] = {}
    for step in steps:
        step.run(account, held)
        picture = observe(account)
        if step.name in WAITING:
            picture = _as_published(held[WAITING[step.name]], account, picture)
        pictures.append(picture)
    return pictures


def _as_published(prepared: Any, account: Account, picture: Picture) -> Picture:
    name = prepared._mailbox.name
    box = picture.boxes[name]
    messages = dict(box.messages)
    for number, (data, names, _date) in enumerate(prepared._messages):
        subject = data.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
        messages[10_000 + number] = (subject, frozenset(names))
    boxes = {**picture.boxes, name: evolve(box, messages=messages)}
    return Picture(boxes, picture.subscriptions)


def check(after: Picture, seen: list[Picture], done: int, expected: list[Picture], step: Step | None) -> None:
    """Is `after`, seen after a crash, allowed, when `done` steps were acknowledged and `step` was in flight?

    `seen` are the pictures of the same run after each acknowledged step, with its UIDs (the first one from before).
    """
    before, then = expected[done], expected[done + 1] if step else expected[done]
    way = step.way if step else "whole"
    if way == "whole":
        allowed = [(want.canonical(), want.subscriptions) for want in (before, then)]
        if (after.canonical(), after.subscriptions) not in allowed:
            raise Violation(f"neither whole nor absent: {after.canonical()}\nbefore {allowed[0]}\nthen {allowed[1]}")
    else:
        _check_each(after, before, then)
    _check_uids(after, seen, before, then)


def _check_each(after: Picture, before: Picture, then: Picture) -> None:
    if not before.boxes.keys() <= after.boxes.keys() <= then.boxes.keys():
        raise Violation(f"mailboxes {sorted(after.boxes)}")
    for name, box in after.boxes.items():
        old = list(before.boxes[name].messages.values()) if name in before.boxes else []
        new = list(then.boxes[name].messages.values())
        for kept in box.messages.values():
            if kept not in old and kept not in new:
                raise Violation(f"{name} has {kept}")
        count = Counter(subject for subject, _flags in box.messages.values())
        count_old, count_new = (Counter(subject for subject, _flags in part) for part in (old, new))
        for subject in count.keys() | count_old.keys() | count_new.keys():
            low, high = sorted((count_old[subject], count_new[subject]))
            if not low <= count[subject] <= high:
                raise Violation(f"{name} has {count[subject]} times {subject!r}")


def _check_uids(after: Picture, seen: list[Picture], before: Picture, then: Picture) -> None:
    used: dict[tuple[bytes, int, int], str] = {}
    next_: dict[tuple[bytes, int], int] = {}
    for picture in seen:
        for box in picture.boxes.values():
            next_[box.id, box.validity] = max(next_.get((box.id, box.validity), 0), box.uid_next)
            for uid, (subject, _flags) in box.messages.items():
                used[box.id, box.validity, uid] = subject
    for name, box in after.boxes.items():
        for uid, (subject, _flags) in box.messages.items():
            was = used.get((box.id, box.validity, uid))
            if was not in {None, subject}:
                raise Violation(f"UID {uid} of {name} was {was!r} and is {subject!r}")
            if was is None and uid < next_.get((box.id, box.validity), 0):
                raise Violation(f"UID {uid} of {name} is below the UIDNEXT told")
            if uid >= box.uid_next:
                raise Violation(f"UIDNEXT {box.uid_next} of {name} is not above UID {uid}")
        if box.uid_next < next_.get((box.id, box.validity), 0):
            raise Violation(f"UIDNEXT of {name} went back")
    last = seen[-1]
    by_id = {box.id: box for box in after.boxes.values()}
    for name, box in last.boxes.items():
        if name not in after.boxes or name not in before.boxes or name not in then.boxes:
            continue
        now = by_id.get(box.id)
        if now is None or now.validity != box.validity:
            raise Violation(f"{name} has another identity: all its messages are downloaded again")
        stays = {subject for subject, _flags in before.boxes[name].messages.values()} & {
            subject for subject, _flags in then.boxes[name].messages.values()
        }
        if before.boxes[name] != then.boxes[name]:
            # "move within" gives a message that stays another UID.
            stays -= {"n0"}
        for uid, (subject, _flags) in box.messages.items():
            if subject in stays and now.messages.get(uid, ("",))[0] != subject:
                raise Violation(f"{subject!r} is no longer UID {uid} of {name}")
