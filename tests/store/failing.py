"""Every operation of the store on a disk that fails at one of its calls, and what must hold then.

*   What was acknowledged survives a power cut right behind it, and a restart.
*   What was refused is not done: nobody sees it, not after a restart either. Where the disk fails for good, so that it
    cannot be taken back, it is whole or absent.
*   What is acknowledged at a second try survives likewise, though the change may have stood there already.
*   No UID that was told names another message, and each listed mailbox opens.
*   Once the disk is well again the next operation succeeds, and no lock and no temporary file is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from mailserver.errors import MailboxExists, MailError, MessageExpunged, NoSuchMailbox
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import lock, reserved_space, safeio
from mailserver.store.maildir.disk.recorder import Change
from mailserver.store.maildir.home import home, recovery, unsynced
from tests.store.decisions import decided_below
from tests.store.disk import INDEX_FILES, USER, account_root, open_store
from tests.store.faults import Faults, Plan
from tests.store.operations import Operation, Refused, foreign_mail
from tests.store.power import Disk, Kind
from tests.store.workload import Picture, Violation, observe, source

# --- what a process and the machine know


@contextlib.contextmanager
def another_process(*, boot: str | None = None, dead: bool = True) -> Iterator[None]:
    """Nothing that this process knows of the disk, and with `boot` another start of the machine.

    `dead`: the processes that were at work are no more.
    """
    with contextlib.ExitStack() as stack:
        for name in ("unsynced", "leftovers"):
            if hasattr(safeio, name):
                stack.enter_context(mock.patch.object(safeio, name, type(getattr(safeio, name))()))
        if dead:
            stack.enter_context(mock.patch.object(recovery, "is_alive", return_value=False))
        if boot is not None:
            for module in _BOOTED:
                stack.enter_context(mock.patch.object(module, "boot_id", return_value=boot))
        yield


_BOOTED: tuple[Any, ...] = (home, unsynced)


def look(root: str) -> Picture:
    """What another process sees, after whatever its start mends."""
    account = open_store(root).account(USER)
    try:
        return observe(account)
    finally:
        account.close()


class Recorder:
    """`safeio.recorder`; files that are not written through `safeio` are none of its business, not their removal either."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def record(self, change: Change) -> None:
        name = os.path.basename(change.path)
        if not name.startswith((lock.FILE_NAME, reserved_space.FILE_NAME, home.INDEX_NAME)):
            self.changes.append(change)


_LEFT = re.compile(r".*(\.lock|\.tmp|\.stale\..*)|mailserver-(new|deleted)\..*|dovecot-uidlist\.lock.*")


def leftovers(root: str) -> list[str]:
    """Locks, temporary files, intents."""
    found: list[str] = []
    for directory, directories, files in os.walk(root):
        inside = os.path.basename(directory)
        found += [
            os.path.relpath(os.path.join(directory, name), root)
            for name in [*directories, *files]
            if inside in {"tmp", "mailserver-intents"} or _LEFT.fullmatch(name)
        ]
    return found


# --- one run


class Run:
    """One operation, one plan."""

    def __init__(self, base: str, scratch: str, operation: Operation, faults: Faults, *, exhaustive: bool) -> None:
        self._base = base
        self._scratch = scratch
        self._operation = operation
        self._faults = faults
        self._exhaustive = exhaustive
        self.root = os.path.join(scratch, "mail")
        self._recorder = Recorder()
        self._held: dict[str, Any] = {}
        self._reported: Picture
        self.before: Picture
        self.then: Picture

    def calls(self) -> list[tuple[str, str]]:
        """The calls that it makes, on a disk that is well; also sees what there is before and after."""
        self._lay_out()
        with another_process(dead=False):
            self._reported = look(self._branch())
            account = self._open()
            self._operation.before(account, self._held)
            with another_process():
                self.before = look(self._branch())
            self._faults.begin(None)
            if self._operation.base == "empty":
                account = self._open_account()
            self._operation.run(account, self._held)
            made = list(self._faults.calls)
            self.then = observe(account)
            account.close()
        return made

    def fail(self, plan: Plan) -> list[str]:
        """What promises are broken."""
        self._lay_out()
        self._recorder.changes.clear()
        self._held.clear()
        self._found: list[str] = []
        with another_process(dead=False), mock.patch.object(safeio, "recorder", self._recorder):
            account = self._open()
            self._operation.before(account, self._held)
            self._faults.begin(plan)
            try:
                self._tries(account, plan)
            finally:
                self._faults.mend()
        return self._found

    def _tries(self, account: Any, plan: Plan) -> None:
        first, account = self._attempt(account, "first")
        if plan.lasts and not first:
            # Nobody has mended anything: whatever is said now must be true too.
            again, account = self._attempt(account, "second")
            first = first or again
        self._faults.mend()
        if account is None:
            account = self._open_account()
        done = first
        if not done:
            if plan.nth % 2:
                done, _ = self._attempt(account, "mended, elsewhere", elsewhere=True)
            else:
                done, account = self._attempt(account, "mended")
            if not done:
                self._found.append("mended: it is refused though all is well")
        with contextlib.suppress(MailError):
            # The next operation of the account object that met the errors.
            account.set_subscribed("any", subscribed=True)
            account.set_subscribed("any", subscribed=False)
        left = leftovers(account_root(self.root))
        if left and self._operation.name != "abort":
            self._found.append(f"left behind: {left}")
        account.close()

    def _attempt(self, account: Any, which: str, *, elsewhere: bool = False) -> tuple[bool, Any]:
        """Whether it was acknowledged (or is done, and says so), and the account."""
        operation = self._operation
        with contextlib.ExitStack() as stack:
            if elsewhere:
                stack.enter_context(another_process(dead=False))
            try:
                if account is None or elsewhere:
                    account = self._open_account()
                if elsewhere and "found" in self._held:
                    mailbox, uids = self._held["found"]
                    self._held["found"] = account.mailbox(mailbox.name), uids
                operation.run(account, self._held)
            except Refused as refused:
                self._check_refused(which, refused.done)
                return False, account
            except (MailboxExists, NoSuchMailbox, MessageExpunged) as error:
                # It says that it is done already, or that something is in the way.
                if not operation.idempotent or which == "first":
                    self._found.append(f"{which}: {error!r}")
                    return False, account
                if not self._is_done():
                    self._check_refused(which, [])
                    return False, account
            except MailError:
                self._check_refused(which, [])
                return False, account
            except Exception as error:
                self._found.append(f"{which}: raised {error!r}")
                return False, account
            self._check_done(which)
        return True, account

    # --- checks

    def _check_done(self, which: str) -> None:
        mark, index = len(self._recorder.changes), self._index()
        self._faults_off(lambda: self._expect(f"{which}: done, then restarted", self._branch(), [self.then], dead=True))
        for kind in ("strict", "journal"):
            for kept in (index, None) if self._exhaustive else ((index,) if kind == "strict" else (None,)):
                self._expect(
                    f"{which}: done, then a power cut ({kind}, {'with' if kept else 'without'} the index)",
                    self._cut(mark, kind, kept),
                    [self.before, self.then] if self._operation.way == "forgotten" else [self.then],
                    boot="another start",
                )

    def _is_done(self) -> bool:
        seen: list[Picture] = []

        def check() -> None:
            with another_process():
                seen.append(look(self._branch()))

        self._faults_off(check)
        return _alike(seen[0], self.then, spare=True)

    def _check_refused(self, which: str, done: Sequence[str]) -> None:
        plan = self._faults.plan
        lasts = plan is not None and plan.lasts
        allowed = [self.before]
        if lasts or self._operation.way not in {"whole", "back"}:
            allowed.append(self.then)
        if self._operation.way == "forgotten":
            # What was prepared before is given up.
            allowed.append(self._reported)
        mark, index = len(self._recorder.changes), self._index()
        self._faults_off(
            lambda: self._expect(f"{which}: refused, then restarted", self._branch(), allowed, dead=True, done=done)
        )
        kind: Kind = "journal" if mark % 2 else "strict"
        self._expect(
            f"{which}: refused, then a power cut ({kind})",
            self._cut(mark, kind, index if self._exhaustive or mark % 3 else None),
            [*allowed, self.then],
            boot="another start",
            done=done,
        )

    def _faults_off(self, check: Callable[[], None]) -> None:
        plan, self._faults.plan = self._faults.plan, None
        recorder, safeio.recorder = safeio.recorder, None
        count, calls = self._faults.count, self._faults.calls
        self._faults.calls = []
        try:
            check()
        finally:
            self._faults.plan, self._faults.count, self._faults.calls = plan, count, calls
            safeio.recorder = recorder

    def _expect(
        self,
        what: str,
        root: str,
        allowed: Sequence[Picture],
        *,
        boot: str | None = None,
        dead: bool = True,
        done: Sequence[str] = (),
    ) -> None:
        def check() -> None:
            with another_process(boot=boot, dead=dead):
                after = look(root)
            self._compare(after, allowed, done)

        try:
            self._faults_off(check)
        except Violation as violation:
            self._found.append(f"{what}: {violation}")
        except Exception as error:
            self._found.append(f"{what}: {type(error).__name__}: {error}")

    def _compare(self, after: Picture, allowed: Sequence[Picture], done: Sequence[str]) -> None:
        operation = self._operation
        subjects = [subject for box in after.boxes.values() for subject, _flags in box.messages.values()]
        if missing := set(done) - set(subjects):
            raise Violation(f"acknowledged and lost: {missing}")
        if operation.way == "told":
            told = self._held.get("told")
            if told is not None:
                _check_told(after, told)
            return
        if operation.way in {"each", "back"} and len(allowed) > 1:
            before, then = allowed[0].canonical(), allowed[-1].canonical()
            for name, messages in after.canonical().items():
                old, new = before.get(name, []), then.get(name, [])
                if any(messages.count(kept) > max(old.count(kept), new.count(kept)) for kept in messages):
                    raise Violation(f"{name} has {messages}")
                if any(kept not in messages for kept in old if kept in new):
                    raise Violation(f"{name} lacks some of {old}")
            return
        if not any(_alike(after, each, spare=len(allowed) > 1) for each in allowed):
            raise Violation(_difference(after, allowed))
        if operation.base != "empty":
            _check_uids(after, self._reported)

    # --- disks

    def _lay_out(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        os.makedirs(self._scratch)
        shutil.copytree(self._base, self.root)

    def _open(self) -> Any:
        """None where there is no account yet: that it is opened belongs to the operation."""
        return None if self._operation.base == "empty" else self._open_account()

    def _open_account(self) -> Any:
        # Not by `open_store`, which would put the reserved space back that was given up.
        store = MaildirStore(
            self.root, summarise, special_use={}, hostname="host.example.test", decided=decided_below(self.root)
        )
        return store.account(USER)

    def _index(self) -> dict[str, bytes]:
        found = {}
        for name in INDEX_FILES[:2]:
            path = os.path.join(account_root(self.root), name)
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                found[name] = file.read()
        return found

    def _branch(self) -> str:
        target = os.path.join(self._scratch, "branch")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.root, target)
        return target

    def _cut(self, mark: int, kind: Kind, index: dict[str, bytes] | None) -> str:
        target = os.path.join(self._scratch, "cut")
        shutil.rmtree(target, ignore_errors=True)
        disk = Disk(self._base)
        disk.root = self.root
        self._before_disk(disk)
        disk.replay(self._recorder.changes[:mark])
        disk.leave(target, kind)
        for name in INDEX_FILES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(account_root(target), name))
        if index:
            # The index is another file: it may be safe where the directory's names are not.
            os.makedirs(account_root(target), exist_ok=True)
            for name, data in index.items():
                with open(os.path.join(account_root(target), name), "wb") as file:
                    file.write(data)
        return target

    def _before_disk(self, disk: Disk) -> None:
        """What others did before the operation is on the disk."""
        if self._operation.before is foreign_mail:
            for number, place in enumerate(("new", "cur")):
                name = f"170000000{number}.M1P1.other" + (":2,S" if place == "cur" else "")
                path = os.path.join(account_root(self.root), place, name)
                for change in (
                    Change("create", path),
                    Change("write", path, data=source(f"foreign{number}")),
                    Change("sync", path),
                    Change("sync_directory", os.path.dirname(path)),
                ):
                    disk.apply(change)


def _alike(after: Picture, wanted: Picture, *, spare: bool) -> bool:
    """`spare`: empty mailboxes may be left of what was refused, where the disk keeps them."""
    have, wish = after.canonical(), wanted.canonical()
    if spare:
        have = {name: messages for name, messages in have.items() if messages or name in wish}
    return have == wish and after.subscriptions == wanted.subscriptions


def _difference(after: Picture, allowed: Sequence[Picture]) -> str:
    lines = []
    for want in allowed:
        have, wish = after.canonical(), want.canonical()
        parts = [
            f"{name}: {have.get(name)} instead of {wish.get(name)}"
            for name in sorted({*have, *wish})
            if have.get(name) != wish.get(name)
        ]
        if after.subscriptions != want.subscriptions:
            parts.append(f"subscribed {sorted(after.subscriptions)} instead of {sorted(want.subscriptions)}")
        lines.append("; ".join(parts))
    return "neither " + "\n      nor ".join(lines)


def _check_uids(after: Picture, before: Picture) -> None:
    """No UID told before names another message."""
    told = {
        (box.id, box.validity, uid): subject
        for box in before.boxes.values()
        for uid, (subject, _flags) in box.messages.items()
    }
    for name, box in after.boxes.items():
        for uid, (subject, _flags) in box.messages.items():
            if told.get((box.id, box.validity, uid), subject) != subject:
                raise Violation(f"UID {uid} of {name} was another message")
        was = before.boxes.get(name)
        if was is not None and was.id == box.id:
            if was.validity != box.validity:
                raise Violation(f"{name} has another UIDVALIDITY")
            if box.uid_next < was.uid_next:
                raise Violation(f"UIDNEXT of {name} went back")


def _check_told(after: Picture, told: Picture) -> None:
    for name, box in told.boxes.items():
        now = after.boxes.get(name)
        if now is None or (now.id, now.validity) != (box.id, box.validity):
            raise Violation(f"{name} has another identity than was told")
        for uid, kept in box.messages.items():
            if now.messages.get(uid) != kept:
                raise Violation(f"UID {uid} of {name} was told as {kept} and is {now.messages.get(uid)}")
        if now.uid_next < box.uid_next:
            raise Violation(f"UIDNEXT of {name} went back")
