"""Cutting the power in a recorded run: which disks are left, and whether the account opened from them keeps its word."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from unittest import mock

from attrs import evolve, frozen

from mailserver.store.maildir.home import home
from tests.store.aftermath import check_aftermath
from tests.store.crash import Log
from tests.store.disk import account_root
from tests.store.power import Disk, Kind
from tests.store.workload import Picture, Step, Violation


@frozen
class Cut:
    """Where the power goes, what kind of disk it is, and what is left of the index."""

    position: int
    """Changes made before it."""
    kind: Kind
    index: int | None
    """The index as it was at that picture; None: absent."""
    torn: int = 0
    """Octets missing at the end of its WAL."""


def acknowledged(log: Log, position: int) -> Log:
    """The log as far as it was written when the power went."""
    count = sum(mark <= position for mark in log.marks)
    return evolve(log, pictures=log.pictures[:count], done=count - 1)


def cuts(log: Log, steps: Sequence[Step], only: set[str] | None = None, *, quick: bool = False) -> Iterator[Cut]:
    """Before and after each change; the states of the index take turns over the positions, unless in `only` few steps.

    `quick`: the kinds of disks take turns too, except where a command has just been acknowledged.
    """
    for position in range(len(log.changes) + 1):
        done = acknowledged(log, position).done
        # The moment right after the acknowledgement belongs to the step as well.
        at = {done, done - 1} if done >= 0 and position - log.marks[done] <= 1 else {done}
        if only is not None and not any(0 <= number < len(steps) and steps[number].name in only for number in at):
            continue
        torn = position > 0 and log.changes[position - 1].operation == "write"
        kinds: tuple[Kind, ...] = ("strict", "journal", "torn") if torn else ("strict", "journal")
        if not quick and only is None:
            kinds += ("everything",)
        for number, kind in enumerate(kinds):
            if quick and kind == kinds[position % 2] and position not in log.marks:
                continue
            indexes = [
                Cut(position, kind, None),
                Cut(position, kind, done),
                Cut(position, kind, max(0, done - 1 - position % 3)),
                Cut(position, kind, done, torn=1 + 997 * (position % 7)),
            ]
            if done < 0:
                # What is known of the account, and nothing of it on the disk.
                yield from (indexes[0], Cut(position, kind, 0))
            elif only is None:
                yield indexes[(position + number) % 4]
            else:
                yield from indexes


def after_power_cut(log: Log, cut: Cut, disk: Disk, scratch: str, expected: list[Picture], steps: Sequence[Step], *, thorough: bool) -> None:  # fmt: skip
    """Lay out what is left and check it. `disk` has been replayed up to the cut. Raises: Violation."""
    root = os.path.join(scratch, "mail")
    shutil.rmtree(scratch, ignore_errors=True)
    os.mkdir(scratch)
    disk.leave(root, cut.kind)
    if cut.index is not None:
        # Another file: it may be there where the directory that it belongs to has lost its names.
        os.makedirs(account_root(root), exist_ok=True)
        for name, data in log.indexes[cut.index].items():
            kept = data[: max(0, len(data) - cut.torn)] if name.endswith("-wal") else data
            with open(os.path.join(account_root(root), name), "wb") as stream:
                stream.write(kept)
    try:
        # The machine has been started again.
        with mock.patch.object(home, "boot_id", return_value="another start"):
            check_aftermath(root, acknowledged(log, cut.position), expected, steps, thorough=thorough)
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}") from error


def violations(log: Log, root: str, empty: str, scratch: str, expected: list[Picture], steps: Sequence[Step], only: set[str] | None = None, *, quick: bool = False, thorough: bool = True, stop: bool = False) -> list[str]:  # fmt: skip
    """All broken promises (with `stop` the first), one line each. The run began on an empty disk under `root`."""
    found: list[str] = []
    chosen = list(cuts(log, steps, only, quick=quick))
    groups = [chosen]
    if stop:
        # Where one is enough, it is most often seen right after a command was acknowledged, and without an index.
        places = [(acknowledged, absent) for acknowledged in (True, False) for absent in (True, False)]
        groups = [
            [cut for cut in chosen if (cut.position in log.marks, cut.index is None) == place] for place in places
        ]
    for several in groups:
        disk = Disk(empty)
        disk.root = root
        made = 0
        for number, cut in enumerate(several):
            while made < cut.position:
                disk.apply(log.changes[made])
                made += 1
            try:
                after_power_cut(
                    log, cut, disk, scratch, expected, steps, thorough=thorough and number % (6 if quick else 3) == 0
                )
            except Violation as violation:
                done = acknowledged(log, cut.position).done
                step = steps[done].name if 0 <= done < len(steps) else "the end" if done >= 0 else "opening"
                last = log.changes[cut.position - 1] if cut.position else None
                what = f"{last.operation} {last.path[-60:]}" if last else "nothing"
                found.append(f"in {step!r} after {what} [{cut}]: {violation}")
                if stop:
                    return found
    return found
