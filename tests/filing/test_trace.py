"""The trace of a message: which deliveries here it shows, and what a loop of LMTP or submission comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.filing.trace import earlier_recipients, trace_fields
from tests.smtp.world import AS_SENT, MESSAGE, World, begin

HERE = "mail.example.test"
OWN = b"Received: from a.example.net ([192.0.2.7])\r\n\tby mail.example.test with LMTP id x;\r\n\tTue, 14 Nov 2023\r\n"
OTHER = b"Received: from mail.example.test (b [192.0.2.8])\r\n\tby mx.example.net with ESMTP; Tue, 14 Nov 2023\r\n"
ANNA = b"Delivered-To: anna@example.test\r\n"
BERT = b"DELIVERED-TO :\r\n\tBert@Example.org\r\n"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (OTHER + b"Return-Path: <a@b>\r\n" + ANNA + OWN, {"anna@example.test"}),
        (OTHER + ANNA + b"DKIM-Signature: a=b;\r\n c\r\n" + OWN, {"anna@example.test"}),
        (OTHER + ANNA + OWN + OTHER + BERT + OWN, {"anna@example.test", "bert@example.org"}),
        (OWN + ANNA + BERT + OWN.upper(), {"anna@example.test", "bert@example.org"}),
        (OTHER + "Delivered-To: jürgen@example.test\r\n".encode() + OWN, {"jürgen@example.test"}),
        (OTHER + b"Delivered-To: \xff@example.test\r\n" + OWN, {"\ufffd@example.test"}),
        # Of the transfer agent that brings it, which may have this server's name.
        (ANNA + OWN, set()),
        # Of a provider from which it is fetched.
        (OTHER + ANNA + OTHER + OWN, set()),
        (OTHER + ANNA, set()),
        (OTHER + ANNA + b"Received: nothing\r\n" + OWN, set()),
        (OTHER + ANNA + b"Received: from x by mail.example.test.evil.example; date\r\n", set()),
        (OTHER + b"X-Delivered-To: anna@example.test\r\n" + OWN, set()),
        (OTHER + b"Subject: x\r\n Delivered-To: anna@example.test\r\n" + OWN, set()),
        (b"", set()),
    ],
)
def test_deliveries_of_this_server(header: bytes, found: set[str]) -> None:
    assert earlier_recipients(header, HERE) == found


def test_the_fields_of_final_delivery() -> None:
    assert (
        trace_fields("a@example.net", "b@example.test")
        == b"Return-Path: <a@example.net>\r\nDelivered-To: b@example.test\r\n"
    )
    assert trace_fields("", "b@example.test").startswith(b"Return-Path: <>\r\n")


def test_a_message_that_comes_back_is_refused_for_that_recipient_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.deliver(MESSAGE).startswith(b"250")
    [kept] = world.kept()
    assert kept.endswith(AS_SENT)
    again = OTHER + kept.replace(b"\r\n.", b"\r\n..")
    client = world.lhlo()
    client.ask(begin(b"ANNA@example.test", b"bert@example.org", b"anna+x@example.test") + b"DATA\r\n")
    replies = client.ask(again + b".\r\n").split(b"\r\n")
    assert [line[:9] for line in replies] == [b"554 5.4.6", b"250 2.0.0", b"250 2.0.0", b""]
    assert world.kept("bert@example.org")[0].endswith(again.replace(b"\r\n..", b"\r\n.").split(b"\r\n", 1)[1][-300:])
    # The first, and that for another detail.
    assert len(world.kept()) == 2
    assert world.left_behind() == []


def test_what_is_sent_once_more_by_submission_is_no_loop(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.deliver(MESSAGE).startswith(b"250")
    again = OTHER + world.kept()[0].replace(b"\r\n.", b"\r\n..")
    assert world.submit(again, b"anna@example.test").startswith(b"250")
    assert world.kept()[1].lower().count(b"delivered-to: anna@example.test") == 1
    # Nor is it one later, wherever the message goes then.
    assert earlier_recipients(OTHER + world.kept()[1], HERE) == {"anna@example.test"}
