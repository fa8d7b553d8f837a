"""What must hold when an account is opened after a crash or a power cut, whatever was going on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.store.crash import HANG, Log, drop_index
from tests.store.disk import USER, open_store
from tests.store.workload import Picture, Step, Violation, check, observe, stage


def check_aftermath(
    root: str, log: Log, expected: list[Picture], steps: Sequence[Step], *, thorough: bool = True
) -> None:
    """Open, compare with what may be there, go on working, open again, also without the index. Raises: Violation."""
    done = log.done
    in_flight = steps[done] if done < len(steps) else None
    if done < 0:
        # Not even the account had been opened.
        done, in_flight = 0, None
    started = time.monotonic()
    account = open_store(root).account(USER)
    try:
        after = observe(account)
    finally:
        account.close()
    if time.monotonic() - started > HANG:
        raise Violation("the start waited for a dead process")
    check(after, log.pictures or [after], done, expected, in_flight)
    if thorough:
        _go_on(root, log, after)


def _go_on(root: str, log: Log, after: Picture) -> None:
    account = open_store(root).account(USER)
    try:
        if observe(account) != after:
            raise Violation("the second start shows something else than the first")
        [uid] = account.append("INBOX", [stage(account, "life goes on")]).uids
        inbox = after.boxes["INBOX"]
        ever = [
            number
            for picture in [*log.pictures, after]
            for box in picture.boxes.values()
            if (box.id, box.validity) == (inbox.id, inbox.validity)
            for number in (*box.messages, box.uid_next - 1)
        ]
        if uid <= max(ever, default=0):
            raise Violation(f"UID {uid} was used or promised before")
        then = observe(account)
    finally:
        account.close()
    for name, box in then.boxes.items():
        old = after.boxes[name].messages if name in after.boxes else {}
        new = {number: kept for number, kept in box.messages.items() if number not in old}
        if {**old, **new} != box.messages or new != ({uid: ("life goes on", frozenset())} if name == "INBOX" else {}):
            raise Violation(f"{name} changed by itself")
    drop_index(root)
    account = open_store(root).account(USER)
    try:
        if observe(account) != then:
            raise Violation("without the index the account looks different")
    finally:
        account.close()
