"""What was just read: its bounds in octets, files and time."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from mailserver.message.summary import Summary
from mailserver.store.live.message_cache import KEPT_OPEN, MessageCache


class File:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Mailbox:
    """As much of a LiveMailbox as is asked of it."""

    def __init__(self, serial: int = 1, messages: int = 1000) -> None:
        self.serial = serial
        self.messages = messages
        self.account = self.columns = self
        self.kept = True

    def position(self, uid: int) -> int:
        return uid - 1 if uid <= self.messages else -1

    def keeps(self, _live: object) -> bool:
        return self.kept

    def run(self, operation: Any) -> None:
        operation()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, **bounds: int) -> Any:
    return cast("Any", MessageCache(call_later=clock.callLater, seconds=clock.seconds, **bounds))


SUMMARY = Summary(b"(envelope)", b"(body)", b"(body structure)", b"Subject: x\r\n")


def test_the_least_recently_read_texts_go_first(clock: Clock) -> None:
    cache, live = made(clock, octets=5000), Mailbox()
    for uid in (1, 2, 3):
        cache.keep_text(live, uid, b"x" * 1000)
    assert cache.text(live, 1) is not None
    cache.keep_text(live, 4, b"x" * 1000)
    assert [uid for uid in range(1, 5) if cache.text(live, uid) is not None] == [1, 3, 4]
    assert cache.octets_kept <= 5000


def test_the_least_recently_read_summaries_go_first(clock: Clock) -> None:
    cache, live = made(clock), Mailbox()
    cache.keep_summaries(live, {1: SUMMARY})
    cache.octets = 3 * cache.octets_kept
    cache.keep_summaries(live, {2: SUMMARY, 3: SUMMARY})
    assert list(cache.summaries(live, [1])) == [1]
    cache.keep_summaries(live, {4: SUMMARY})
    assert sorted(cache.summaries(live, range(1, 5))) == [1, 3, 4]


def test_one_that_is_over_the_bound_is_not_kept(clock: Clock) -> None:
    cache, live = made(clock, octets=5000), Mailbox()
    cache.keep_text(live, 1, b"x" * 1000)
    cache.keep_text(live, 2, b"x" * 5000)
    assert cache.text(live, 1) is not None
    assert cache.text(live, 2) is None


def test_a_bound_of_nothing_keeps_nothing(clock: Clock) -> None:
    cache, live = made(clock, octets=0, files=0), Mailbox()
    file = File()
    cache.keep_text(live, 1, b"")
    cache.keep_summaries(live, {1: SUMMARY})
    cache.give_file(live, 1, file)
    assert (cache.octets_kept, cache.files_kept, file.closed) == (0, 0, 1)
    assert cache.text(live, 1) is cache.take_file(live, 1) is None
    assert not cache.summaries(live, [1])


def test_a_lower_bound_holds_from_the_next_one_on(clock: Clock) -> None:
    cache, live = made(clock), Mailbox()
    for uid in range(1, 100):
        cache.keep_text(live, uid, b"x" * 1000)
    cache.octets = 10_000
    cache.keep_summaries(live, {1: SUMMARY})
    assert cache.octets_kept <= 10_000


def test_summaries_of_headers_alone_are_not_kept(clock: Clock) -> None:
    cache, live = made(clock), Mailbox()
    cache.keep_summaries(live, {1: SUMMARY._replace(body=b"", body_structure=b"")})
    assert not cache.summaries(live, [1])


def test_octets_are_given_back(clock: Clock) -> None:
    cache, one, two = made(clock), Mailbox(1), Mailbox(2)
    for live in (one, two):
        for uid in range(1, 11):
            cache.keep_text(live, uid, b"x" * uid)
            cache.keep_summaries(live, {uid: SUMMARY})
    cache.forget(one, range(1, 6))
    assert cache.text(one, 5) is None
    assert not cache.summaries(one, [5])
    assert cache.summaries(one, [5, 6]) == {6: SUMMARY}
    assert cache.text(two, 5) == b"x" * 5
    cache.forget_mailbox(one)
    assert cache.text(two, 5) == b"x" * 5
    cache.forget_mailbox(two)
    assert cache.octets_kept == 0


def test_files_are_bounded_in_number(clock: Clock) -> None:
    cache, live = made(clock, files=2), Mailbox()
    files = [File() for _ in range(3)]
    for uid, file in enumerate(files, 1):
        cache.give_file(live, uid, file)
    assert [file.closed for file in files] == [1, 0, 0]
    assert cache.take_file(live, 1) is None
    assert cache.take_file(live, 2) is files[1]
    assert cache.take_file(live, 2) is None, "who reads it has it alone"


def test_files_are_closed_a_minute_after_they_were_read(clock: Clock) -> None:
    cache, live = made(clock), Mailbox()
    one, two = File(), File()
    cache.give_file(live, 1, one)
    clock.advance(KEPT_OPEN / 2)
    cache.give_file(live, 2, two)
    clock.advance(KEPT_OPEN / 2)
    assert (one.closed, two.closed) == (1, 0)
    clock.advance(KEPT_OPEN / 2)
    assert (one.closed, two.closed) == (1, 1)
    assert clock.getDelayedCalls() == []
    again = File()
    cache.give_file(live, 1, again)
    clock.advance(KEPT_OPEN)
    assert again.closed == 1


def test_no_timer_is_left_after_the_end_of_the_service(clock: Clock) -> None:
    cache, live = made(clock), Mailbox()
    file = File()
    cache.give_file(live, 1, file)
    cache.stop()
    assert clock.getDelayedCalls() == []
    cache.forget_mailbox(live)
    assert file.closed == 1


def test_files_of_expunged_messages_are_closed(clock: Clock) -> None:
    cache, live = made(clock), Mailbox()
    file, late, twice = File(), File(), File()
    cache.give_file(live, 1, file)
    cache.give_file(live, 1, twice)
    assert twice.closed == 1
    cache.forget(live, [1])
    assert file.closed == 1
    live.messages = 0  # expunged while it was read
    cache.give_file(live, 1, late)
    assert (late.closed, cache.files_kept) == (1, 0)


def test_files_of_a_mailbox_that_is_forgotten_meanwhile_are_closed(clock: Clock) -> None:
    """Its account may be closed by the time it would come to that."""
    cache, live = made(clock), Mailbox()
    file = File()
    live.kept = False
    cache.give_file(live, 1, file)
    assert (file.closed, cache.files_kept) == (1, 0)
