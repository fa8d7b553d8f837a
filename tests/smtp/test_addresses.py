"""LMTP and submission for addresses that lead to several users, elsewhere, or nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailserver.auth.interfaces import DomainEntry, Entry, User
from mailserver.errors import NoSpace
from mailserver.filing.local_copy import LocalCopy
from tests.smtp.world import FakeHop, World

INFO, ANNA, BERT = "info@example.test", "anna@example.test", "bert@example.org"
MESSAGE = b"From: anna@example.test\r\n\r\ntext\r\n"


def world_of(directory: Path, hop: FakeHop | None = None) -> World:
    world = World(directory, hop)
    world.authenticator.users["carl@example.org"] = "secret3"
    world.authenticator.entries = {
        INFO: Entry((ANNA, BERT), frozenset({ANNA})),
        "all@example.test": Entry((INFO, "carl@example.org")),
        "out@example.test": Entry((ANNA, "x@elsewhere.test")),
        "far@example.test": Entry(("x@elsewhere.test", "y@elsewhere.test")),
        "loop@example.test": Entry(("loop2@example.test",)),
        "loop2@example.test": Entry(("loop@example.test",)),
    }
    return world


def by_lmtp(world: World, *recipients: bytes) -> tuple[list[bytes], list[bytes]]:
    """The codes of RCPT, and of the end of the message."""
    client = world.lhlo()
    client.ask(b"MAIL FROM:<x@example.net>\r\n")
    answers = [client.ask(b"RCPT TO:<" + each + b">\r\n")[:9] for each in recipients]
    if not any(each.startswith(b"250") for each in answers):
        return answers, []
    client.ask(b"DATA\r\n")
    ends = [line[:9] for line in client.ask(MESSAGE + b".\r\n").split(b"\r\n")[:-1]]
    return answers, ends


def test_lmtp_delivers_to_all_of_an_alias_with_one_reply(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    assert by_lmtp(world, b"Info+Work@Example.TEST", b"carl@example.org") == (
        [b"250 2.1.5"] * 2,
        [b"250 2.0.0"] * 2,
    )
    for user in (ANNA, BERT):
        [kept] = world.kept(user)
        assert b"\r\nDelivered-To: Info+Work@Example.TEST\r\n" in kept
        assert b"for <Info+Work@Example.TEST>" in kept
        assert kept.endswith(MESSAGE)
    assert world.left_behind() == []


def test_the_detail_of_an_alias_names_the_folder_of_each(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.store.account(BERT).create("Work")
    by_lmtp(world, b"info+Work@example.test")
    assert (len(world.kept(ANNA)), len(world.kept(BERT, "Work"))) == (1, 1)


@pytest.mark.parametrize("step", ["prepare", "open"])
def test_if_one_fails_nobody_of_the_alias_has_it_and_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world = world_of(tmp_path)
    prepare = LocalCopy.prepare

    async def full(copy: LocalCopy, *rest: Any) -> None:
        if copy._live.account.user == BERT:  # type: ignore[attr-defined]
            raise NoSpace
        await prepare(copy, *rest)

    if step == "prepare":
        monkeypatch.setattr(LocalCopy, "prepare", full)
    else:
        opened = world.accounts.open

        async def closed(user: str, *rest: Any) -> Any:
            if user == BERT:
                raise NoSpace
            return await opened(user, *rest)

        monkeypatch.setattr(world.accounts, "open", closed)
    codes, ends = by_lmtp(world, b"info@example.test", b"carl@example.org")
    assert (codes, ends) == ([b"250 2.1.5"] * 2, [b"452 4.3.1", b"250 2.0.0"])
    assert (world.kept(ANNA), world.kept(BERT), len(world.kept("carl@example.org"))) == ([], [], 1)
    assert world.left_behind() == []


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        (b"loop@example.test", b"554 5.4.6"),
        (b"out@example.test", b"550 5.7.1"),
        (b"nobody@example.test", b"550 5.1.1"),
    ],
)
def test_what_lmtp_refuses(tmp_path: Path, recipient: bytes, code: bytes) -> None:
    world = world_of(tmp_path)
    assert by_lmtp(world, recipient) == ([code], [])


@pytest.mark.parametrize("by_submission", [False, True])
def test_a_message_has_no_more_copies_than_one_address_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_submission: bool
) -> None:
    monkeypatch.setattr("mailserver.filing.local_copies.MAX_COPIES", 0)
    world = world_of(tmp_path)
    for kind in ("lmtp.LmtpSession", "submission.SubmissionSession"):
        monkeypatch.setattr(f"mailserver.smtp.{kind}.max_recipients", 2)
    client = world.log_in() if by_submission else world.lhlo()
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask(b"RCPT TO:<info@example.test>\r\n").startswith(b"250")
    assert client.ask(b"RCPT TO:<carl@example.org>\r\n").startswith(b"452 4.5.3")
    client.ask(b"DATA\r\n")
    assert client.ask(MESSAGE + b".\r\n").startswith(b"250")
    assert [len(world.kept(user)) for user in (ANNA, BERT, "carl@example.org")] == [1, 1, 0]


def test_abuse_and_postmaster_may_be_aliases(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.authenticator.entries["postmaster@example.test"] = Entry((ANNA, BERT))
    assert by_lmtp(world, b"abuse@example.test")[1] == [b"250 2.0.0"]
    assert by_lmtp(world, b"Postmaster@example.test")[1] == [b"250 2.0.0"]
    assert (len(world.kept(ANNA)), len(world.kept(BERT))) == (2, 2)
    world.authenticator.entries["abuse@example.test"] = Entry((BERT,))
    assert by_lmtp(world, b"abuse@example.test")[1] == [b"250 2.0.0"]
    assert (len(world.kept(ANNA)), len(world.kept(BERT))) == (2, 3)


def test_submission_gives_each_user_of_nested_groups_one_copy(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    assert world.submit(MESSAGE, b"all@example.test", b"bert@example.org").startswith(b"250")
    assert [len(world.kept(user)) for user in (ANNA, BERT, "carl@example.org")] == [1, 1, 1]
    assert world.left_behind() == []


def test_submission_passes_targets_elsewhere_to_the_hop(tmp_path: Path) -> None:
    hop = FakeHop()
    world = world_of(tmp_path, hop)
    assert world.submit(MESSAGE, b"out@example.test").startswith(b"250")
    assert b"RCPT TO:<x@elsewhere.test>" in hop.lines
    assert len(world.kept(ANNA)) == 1


def test_without_a_hop_nobody_gets_what_should_leave(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask(b"RCPT TO:<out@example.test>\r\n").startswith(b"550 5.7.1")
    assert client.ask(b"DATA\r\n").startswith(b"503")
    assert world.kept(ANNA) == []


def test_a_hop_that_refuses_a_later_target_refuses_the_message(tmp_path: Path) -> None:
    hop = FakeHop(replies={b"RCPT TO:<y@": b"550 5.1.1 unknown\r\n"})
    world = world_of(tmp_path, hop)
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\n")
    assert client.ask(b"RCPT TO:<far@example.test>\r\n").startswith(b"550 5.1.1")
    # Another refusal does not make the first one forgotten.
    world.authenticator.entries["only@example.test"] = Entry(("y@elsewhere.test",))
    assert client.ask(b"RCPT TO:<only@example.test>\r\n").startswith(b"550 5.1.1")
    client.ask(b"DATA\r\n")
    assert client.ask(MESSAGE + b".\r\n").startswith(b"550 5.1.1")
    assert (world.kept(BERT), hop.messages) == ([], [])
    client.hang_up()
    assert world.left_behind() == []


def test_a_domain_of_a_back_end_is_not_relayed(tmp_path: Path) -> None:
    hop = FakeHop()
    world = world_of(tmp_path, hop)
    world.authenticator.domain_entries["example.net"] = DomainEntry("example.test")
    assert world.submit(MESSAGE, b"anna@example.net").startswith(b"250")
    assert hop.lines == []
    assert len(world.kept(ANNA)) == 1


@pytest.mark.parametrize(("sender", "code"), [(b"info@example.test", b"250"), (b"all@example.test", b"550")])
def test_a_user_sends_as_an_alias_and_not_as_a_group(tmp_path: Path, sender: bytes, code: bytes) -> None:
    world = world_of(tmp_path)
    client = world.log_in()
    assert client.ask(b"MAIL FROM:<" + sender + b">\r\n").startswith(code)


def test_a_from_field_of_an_alias(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    assert world.submit(b"From: info@example.test\r\n\r\n").startswith(b"250")
    assert world.submit(b"From: all@example.test\r\n\r\n").startswith(b"550 5.7.1")


def test_a_user_with_a_bare_name(tmp_path: Path) -> None:
    world = world_of(tmp_path)

    async def find(address: str) -> User | None:
        return User("anna") if address == "info@example.org" else None

    world.authenticator.find = find  # type: ignore[method-assign]
    assert by_lmtp(world, b"info@example.org")[1] == [b"250 2.0.0"]
    assert len(world.kept("anna")) == 1
