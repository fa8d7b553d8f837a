"""The memory in which workers mark the mailboxes that they have open, shared by processes."""

from __future__ import annotations

import os
from zlib import crc32

import pytest

from mailserver.net.ipc.open_mailbox_table import ROW, SLOTS, OpenMailboxTable, make_memory, map_memory
from mailserver.types import MailboxId

BOX = MailboxId(b"a" * 16)


def _same_slot(mailbox: MailboxId) -> MailboxId:
    number = 0
    while crc32(number.to_bytes(16, "big")) % SLOTS != crc32(mailbox) % SLOTS:
        number += 1
    return MailboxId(number.to_bytes(16, "big"))


def test_a_mark_is_seen_by_another_worker_until_the_mailbox_is_closed() -> None:
    memory = bytearray(2 * ROW)
    first, second = OpenMailboxTable(memory, 0), OpenMailboxTable(memory, 1)
    first.mark(BOX)
    assert second.may_be_open(BOX, 0)
    assert not first.may_be_open(BOX, 1)
    first.opened(BOX)
    first.closed(BOX)
    assert not second.may_be_open(BOX, 0)


def test_a_mailbox_with_the_same_slot_keeps_the_mark() -> None:
    table, other = OpenMailboxTable(bytearray(ROW), 0), _same_slot(BOX)
    table.opened(BOX)
    table.opened(other)
    table.closed(BOX)
    assert table.may_be_open(other, 0)
    table.closed(other)
    assert not table.may_be_open(other, 0)


def test_a_mark_that_is_removed_before_the_mailbox_is_open_is_noticed() -> None:
    table, other = OpenMailboxTable(bytearray(ROW), 0), _same_slot(BOX)
    table.mark(other)
    assert table.opened(other)
    table.mark(BOX)
    table.closed(other)
    assert not table.opened(BOX)
    assert table.may_be_open(BOX, 0)


def test_a_change_flag_is_set_for_the_other_workers_with_the_mailbox_open() -> None:
    memory = bytearray(3 * ROW)
    first, second, third = (OpenMailboxTable(memory, number) for number in range(3))
    for table in (first, second):
        table.mark(BOX)
        assert table.opened(BOX)
    first.set_changed(BOX)
    assert [bool(table.change_flag(BOX)()) for table in (first, second, third)] == [False, True, False]
    assert second.take_changed(BOX) == (BOX,)
    assert not second.change_flag(BOX)()
    second.closed(BOX)
    first.set_changed(BOX)
    assert not second.change_flag(BOX)()


def test_mailboxes_that_share_a_flag_are_all_read_again() -> None:
    memory, other = bytearray(2 * ROW), _same_slot(BOX)
    writer, reader = OpenMailboxTable(memory, 0), OpenMailboxTable(memory, 1)
    reader.opened(BOX)
    reader.opened(other)
    writer.set_changed(other)
    assert set(reader.take_changed(BOX)) == {BOX, other}


@pytest.mark.parametrize("end", ["take_changed", "closed"])
def test_a_flag_that_is_removed_before_the_mailbox_is_open_is_noticed(end: str) -> None:
    memory, other = bytearray(2 * ROW), _same_slot(BOX)
    writer, reader = OpenMailboxTable(memory, 0), OpenMailboxTable(memory, 1)
    reader.opened(other)
    reader.mark(BOX)
    writer.set_changed(BOX)
    getattr(reader, end)(other)
    assert not reader.opened(BOX)


def test_a_worker_clears_the_marks_of_its_predecessor_alone() -> None:
    memory = bytearray(2 * ROW)
    OpenMailboxTable(memory, 0).opened(BOX)
    OpenMailboxTable(memory, 1).opened(BOX)
    again = OpenMailboxTable(memory, 0)
    again.clear()
    assert not again.may_be_open(BOX, 0)
    assert again.may_be_open(BOX, 1)


def test_the_memory_is_shared_by_processes_and_its_size_is_fixed() -> None:
    with make_memory(2) as made:
        with pytest.raises(PermissionError):
            os.ftruncate(made.fileno(), 0)
        memory = map_memory(os.dup(made.fileno()))
    child = os.fork()
    if not child:
        OpenMailboxTable(memory, 1).opened(BOX)
        os._exit(0)
    os.waitpid(child, 0)
    assert OpenMailboxTable(memory, 0).may_be_open(BOX, 1)
    memory.close()
