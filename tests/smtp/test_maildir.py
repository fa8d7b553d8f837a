"""Delivery into Maildirs: what is on disk after it, and after what goes wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mailserver.store.maildir.account.store import MaildirStore
from tests.smtp.world import EMPTY_SUMMARY, HEADER, MESSAGE, FakeHop, World, begin, submission_trace

ANNA, BERT = "example.test/anna", "example.org/bert"


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "spool").mkdir()
    store = MaildirStore(tmp_path / "mail", lambda _message: EMPTY_SUMMARY, hostname="mail.example.test")
    return World(tmp_path / "spool", FakeHop(), store=store)


def files(world: World, account: str, folder: str) -> list[bytes]:
    """The messages of a directory of the Maildir, by name."""
    directory = world.directory.parent / "mail" / account / "Maildir" / folder
    return [path.read_bytes() for path in sorted(directory.iterdir())] if directory.exists() else []


@pytest.mark.parametrize("large", [False, True])
def test_lmtp_into_a_folder(large: bool, world: World) -> None:
    world.store.account("anna@example.test").create("Lists")
    client = world.lhlo()
    client.ask(begin(b"anna+Lists@example.test", b"bert@example.org"))
    text = b"Subject: x\r\n\r\n" + b"line\r\n" * (40000 if large else 1)
    assert client.ask(b"DATA\r\n" + text + b".\r\n").count(b"250 2.0.0") == 2
    for account, folder in ((ANNA, ".Lists/new"), (BERT, "new")):
        (kept,) = files(world, account, folder)
        assert kept.startswith(b"Return-Path: <x@example.net>\r\nDelivered-To: ")
        assert kept.endswith(b"\r\n" + text)
    assert files(world, ANNA, "new") == files(world, ANNA, "tmp") == files(world, BERT, "tmp") == []
    assert list(world.directory.iterdir()) == []


@pytest.mark.parametrize("refused", [False, True])
def test_a_large_message_is_written_once_for_all_recipients(
    refused: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    copied: list[int] = []
    write, copy = os.write, os.copy_file_range

    def count_write(descriptor: int, data: bytes) -> int:
        written.append(write(descriptor, data))
        return written[-1]

    def count_copy(source: int, target: int, count: int, offset_src: int) -> int:
        if refused:
            raise OSError(errno.EXDEV, "another file system")
        copied.append(copy(source, target, min(count, 100_000), offset_src=offset_src))
        return copied[-1]

    monkeypatch.setattr(os, "write", count_write)
    monkeypatch.setattr(os, "copy_file_range", count_copy)
    client = world.lhlo()
    recipients = [b"anna@example.test", b"bert@example.org", b"anna+x@example.test"]
    client.ask(begin(*recipients))
    text = b"Subject: x\r\n\r\n" + b"line\r\n" * 40_000
    assert client.ask(b"DATA\r\n" + text + b".\r\n").count(b"250 2.0.0") == 3
    kept = files(world, ANNA, "new") + files(world, BERT, "new")
    assert len({data.partition(b"\r\n\r\n")[0] for data in kept}) == 3, "each has its own trace fields"
    assert [data.endswith(b"\r\n" + text) for data in kept] == [True] * 3
    if refused:
        assert sum(written) > 4 * len(text)
    else:
        assert sum(copied) == 3 * len(text)
        assert sum(written) < len(text) + 10_000
    assert files(world, ANNA, "tmp") == files(world, BERT, "tmp") == []


@pytest.mark.parametrize("large", [False, True])
def test_a_message_for_both_kinds(large: bool, world: World) -> None:
    assert world.hop is not None
    seen: list[list[bytes]] = []
    world.hop.on_end = lambda: seen.append(files(world, ANNA, "new") + files(world, BERT, "new"))
    message = MESSAGE + b"line\r\n" * (40000 if large else 0)
    recipients = (b"anna@example.test", b"bert@example.org", b"x@elsewhere.test")
    assert world.submit(message, *recipients) == b"250 2.0.0 hop has it\r\n"
    # Nothing is visible before the hop has answered.
    assert seen == [[]]
    sent = message.replace(b"\r\n.", b"\r\n")
    assert files(world, ANNA, "new") == [submission_trace(b"anna@example.test", alone=False) + sent]
    assert files(world, BERT, "new") == [submission_trace(b"bert@example.org", alone=False) + sent]
    assert files(world, ANNA, "tmp") == files(world, BERT, "tmp") == []


def test_a_message_that_the_hop_refuses(world: World) -> None:
    assert world.hop is not None
    world.hop.replies[b"."] = b"554 5.7.1 no\r\n"
    recipients = (b"anna@example.test", b"bert@example.org", b"x@elsewhere.test")
    assert world.submit(MESSAGE, *recipients) == b"554 5.7.1 no\r\n"
    for account in (ANNA, BERT):
        assert files(world, account, "new") == files(world, account, "tmp") == []
    # Nor does it come back: the next delivery finds no intent.
    assert world.submit(HEADER + b"\r\n", b"anna@example.test", b"bert@example.org").startswith(b"250")
    assert [text[-2:] for text in files(world, ANNA, "new")] == [b"\r\n"]
    assert len(files(world, BERT, "new")) == 1
