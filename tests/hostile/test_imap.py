"""Hostile IMAP clients: lines, literals, sets, trees, names (RFC 3501, RFC 7888)."""

from __future__ import annotations

import re

import pytest

from tests.hostile.conftest import LARGEST
from tests.hostile.wire import Client, log_in
from tests.server import Server

HUGE = [2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**100]
NAMES_USER = "carla@example.test"
NO_LITERALS = [b"{-5}", b"{1_0}", b"{4++}", b"{+}", b"{}", b"{0x4}", b"{4+", b"{ 4}", b"{4-}", b"{4}x", b"{\xd9\xa4}"]


def refused(answer: bytes) -> bool:
    return answer.startswith((b"NO ", b"BAD "))


# --- Lines


@pytest.mark.parametrize("size", [9000, 60_000])
def test_an_over_long_line_before_login(server: Server, size: int) -> None:
    with Client(server, "imap") as client:
        client.send(b"x NOOP " + b"a" * size + b"\r\n")
        assert client.reply().startswith(b"x BAD")
        client.in_step()


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_an_over_long_line_after_login(imap: Client, size: int) -> None:
    imap.send(b"x NOOP " + b"a" * size + b"\r\n")
    assert imap.reply().startswith(b"x BAD")
    imap.in_step()


@pytest.mark.parametrize("logged_in", [False, True])
def test_an_endless_line_ends_the_connection(server: Server, logged_in: bool) -> None:
    with log_in(server, "imaps", "anna@example.test") if logged_in else Client(server, "imap") as client:
        for _ in range(40):
            if not client.send_cut(b"a" * 65536):
                break
        assert client.to_the_end().endswith((b"* BYE more data was sent than can be discarded\r\n", b""))


def test_a_literal_behind_an_over_long_line_is_never_a_command(imap: Client) -> None:
    inside = b"evil LOGOUT\r\n"
    imap.send(b"x NOOP " + b"a" * 70_000 + b" {%d+}\r\n%b\r\n" % (len(inside), inside))
    assert imap.reply().startswith(b"x BAD")
    imap.in_step()


@pytest.mark.parametrize(
    "line",
    [
        b"x NOOP\rx NOOP\r\n",
        b"x NOOP\n\r\n",
        b"x NOOP\ny LOGOUT\r\n",
        b"x NOOP\r\r\n",
        b"x NO\0OP\r\n",
        b'x SELECT "a\0b"\r\n',
        b'x SELECT "a\rb"\r\n',
        b'x SELECT "a\nb LOGOUT"\r\n',
    ],
)
def test_bare_cr_lf_and_nul(imap: Client, line: bytes) -> None:
    imap.send(line)
    assert imap.reply().startswith(b"x BAD")
    imap.in_step()


@pytest.mark.parametrize("line", [b"", b" ", b"\xff\xfe\xfd", b"(", b"* OK", b"+ OK", b"}", b'"', b"a" * 9000])
def test_what_is_no_command(imap: Client, line: bytes) -> None:
    imap.send(line + b"\r\n")
    assert b" BAD " in imap.reply()
    imap.in_step()


def test_unknown_and_misplaced_commands(server: Server) -> None:
    with Client(server, "imap") as client:
        for word in (b"XYZZY", b"SELECT INBOX", b"FETCH 1 FLAGS", b"IDLE", b"APPEND INBOX {}"):
            literals = [b"x"] if b"{}" in word else []
            assert client.command(word, *literals)[-1].startswith(b"BAD"), word
            client.in_step()
    with log_in(server, "imaps", "anna@example.test") as client:
        for word in (
            b"XYZZY",
            b"LOGIN a b",
            b"AUTHENTICATE PLAIN",
            b"STARTTLS",
            b"FETCH 1 FLAGS",
            b"CLOSE",
            b"EXPUNGE",
        ):
            assert client.command(word)[-1].startswith(b"BAD"), word
            client.in_step()


# --- Literals


@pytest.mark.parametrize("size", [5000, *HUGE])
def test_no_large_literal_is_invited_before_login(server: Server, size: int) -> None:
    with Client(server, "imaps") as client:
        client.send(b"x LOGIN {%d}\r\n" % size)
        assert refused(client.reply().removeprefix(b"x "))
        client.in_step()


@pytest.mark.parametrize("size", [LARGEST + 1, *HUGE])
@pytest.mark.parametrize("command", [b"APPEND INBOX ", b"SELECT ", b"SEARCH TEXT ", b"XYZZY ", b'APPEND "no such" '])
def test_no_literal_over_the_limit_is_invited(imap: Client, command: bytes, size: int) -> None:
    imap.send(b"x %b{%d}\r\n" % (command, size))
    assert refused(imap.reply().removeprefix(b"x "))
    imap.in_step()


def test_a_pushed_literal_within_bounds_is_swallowed(server: Server, imap: Client) -> None:
    inside = b"evil LOGOUT\r\n" * 380
    with Client(server, "imaps") as client:
        client.send(b"x LOGIN {%d+}\r\n%b y\r\n" % (len(inside), inside))
        assert refused(client.reply().removeprefix(b"x "))
        client.in_step()
    inside *= 100
    imap.send(b"x SELECT {%d+}\r\n%b y\r\n" % (len(inside), inside))
    assert refused(imap.reply().removeprefix(b"x "))
    imap.in_step()


@pytest.mark.parametrize("size", [70_000, *HUGE])
def test_a_pushed_literal_that_cannot_be_swallowed_ends_the_connection(server: Server, size: int) -> None:
    with Client(server, "imaps") as client:
        client.send(b"x LOGIN {%d+}\r\n" % size)
        client.send_cut(b"evil NOOP\r\n" * 100)
        answer = client.to_the_end()
        assert b"evil" not in answer
        assert b"* BYE" in answer or not answer


@pytest.mark.parametrize("size", HUGE)
def test_a_pushed_message_over_the_limit_ends_the_connection(server: Server, size: int) -> None:
    with log_in(server, "imaps", "anna@example.test") as client:
        client.send(b"x APPEND INBOX {%d+}\r\n" % size)
        client.send_cut(b"evil NOOP\r\n" * 100)
        answer = client.to_the_end()
        assert b"evil" not in answer
        assert b"x NO [TOOBIG]" in answer or b"* BYE" in answer


@pytest.mark.parametrize("announcement", NO_LITERALS)
def test_what_announces_no_literal(server: Server, imap: Client, announcement: bytes) -> None:
    for client in (imap, Client(server, "imaps")):
        client.send(b"x LOGIN " + announcement + b"\r\n")
        assert client.reply().startswith(b"x BAD")
        client.in_step()


def test_a_literal_is_not_run_as_commands(imap: Client) -> None:
    """`{4+}` was, in another server: each literal here has commands in it."""
    for command in (
        b"SELECT {}",
        b"SEARCH TEXT {}",
        b"STATUS {} (MESSAGES)",
        b"XYZZY {}",
        b"LOGIN {} {}",
        b"SELECT {} x",
    ):
        answers = imap.command(command, *[b"evil LOGOUT\r\n"] * command.count(b"{}"))
        assert not any(b"BYE" in answer for answer in answers)
        imap.in_step()
        assert imap.command(b"SELECT INBOX")[-1].startswith(b"OK")


def test_many_literals_share_one_bound(server: Server) -> None:
    with Client(server, "imaps") as client:
        client.send(b"x LOGIN " + b"{1000+}\r\n" + b"a" * 1000 + b" {1000+}\r\n" + b"b" * 1000)
        client.send((b" {1000+}\r\n" + b"c" * 1000) * 20 + b"\r\n")
        assert refused(client.reply().removeprefix(b"x "))
        client.in_step()


def test_nul_in_a_literal(server: Server, imap: Client) -> None:
    user, password = server.user_of("example.test")
    with Client(server, "imaps") as client:
        for name, secret in ((user + "\0", password), (user, password + "\0")):
            assert refused(client.command(b"LOGIN {} {}", name.encode(), secret.encode())[-1])
            client.command(b"NOOP")
    for command in (b"SELECT {}", b"CREATE {}", b"SEARCH TEXT {}"):
        assert refused(imap.command(command, b"IN\0BOX")[-1])
    assert imap.command(b"SELECT INBOX")[-1].startswith(b"OK")


# --- Sets


@pytest.mark.parametrize(
    "numbers",
    [
        b",".join([b"1:*"] * 15_000),
        b",".join(b"%d" % number for number in range(1, 3301)),
        b",".join(b"%d:*" % number for number in range(6000, 1, -1)),
        b"*:4294967295",
        b"4294967295:*",
        b"1:4294967295",
        b",".join([b"4294967295"] * 5000),
        b",".join([b"*"] * 30_000),
    ],
    ids=["all-again", "single", "falling", "beyond", "from-beyond", "everything", "same", "stars"],
)
def test_absurd_sets(imap: Client, numbers: bytes) -> None:
    for command in (
        b"UID FETCH %b FLAGS",
        b"UID SEARCH UID %b",
        b"UID STORE %b FLAGS.SILENT ()",
        b"UID SEARCH NOT UID %b",
    ):
        answer = imap.command(command % numbers)
        assert answer[-1].startswith(b"OK") or b"[LIMIT]" in answer[-1], answer[-1]
        assert len(answer) <= 4
    for command in (b"FETCH %b FLAGS", b"SEARCH %b", b"COPY %b Trash"):
        assert imap.command(command % numbers)[-1].startswith((b"OK", b"BAD", b"NO"))
        imap.in_step()


@pytest.mark.parametrize(
    "numbers",
    [b"0", b"0:1", b"4294967296", b"1:99999999999999999999", b"-1", b"1:", b":1", b",", b"1,", b"1,,2", b"1:2:3", b"**",
     b"1:*:2", b"1_0", b"+1", b"0x1", b"1;2", b"\xd9\xa1"],
)  # fmt: skip
def test_what_is_no_set(imap: Client, numbers: bytes) -> None:
    for command in (b"FETCH %b FLAGS", b"UID FETCH %b FLAGS", b"STORE %b FLAGS ()", b"UID SEARCH UID %b"):
        assert imap.command(command % numbers)[-1].startswith(b"BAD")
        imap.in_step()


# --- Search trees


@pytest.mark.parametrize(
    "keys",
    [
        b"(" * 30_000 + b"ALL" + b")" * 30_000,
        b"(" * 60_000,
        b"NOT " * 16_000 + b"ALL",
        b"OR " * 10_000 + b"ALL " * 10_000 + b"ALL",
        b"OR ALL " * 9000 + b"ALL",
        b" ".join([b"NOT SEEN"] * 7000),
        b"(" + b") (".join([b"ALL"] * 8000) + b")",
        b"NOT " * 25_000 + b"ALL",
    ],
    ids=["parentheses", "open", "not", "or-left", "or-right", "and", "groups", "not-100k"],
)
def test_search_trees(imap: Client, keys: bytes) -> None:
    for command in (b"SEARCH ", b"UID SEARCH ", b"SEARCH RETURN (MIN MAX COUNT) "):
        assert imap.command(command + keys)[-1].startswith((b"BAD", b"NO [LIMIT]"))
        imap.in_step()


def test_the_deepest_tree_that_is_allowed_is_answered(imap: Client) -> None:
    for keys in (b"NOT " * 40 + b"TEXT text", b"(" * 40 + b"TEXT text" + b")" * 40, b"OR TEXT zz " * 40 + b"TEXT text"):
        answer = imap.command(b"SEARCH " + keys)
        assert answer == [b"* SEARCH 1 2 3", answer[-1]]


def test_many_texts_to_search_in_a_large_message(server: Server, mail_user: str) -> None:
    with log_in(server, "imaps", mail_user) as client:
        text = b"Subject: large\r\n\r\n" + (b"a" * 75 + b"\r\n") * 30_000
        assert client.command(b"APPEND INBOX {}", text)[-1].startswith(b"OK")
        client.command(b"SELECT INBOX")
        keys = b" ".join(b"NOT TEXT %b" % (b"a" * 30 + b"%d" % number) for number in range(120))
        answer = without_progress(client.command(b"SEARCH " + keys))
        assert answer == [b"* SEARCH 1", answer[-1]]
        keys = b" ".join([b"NOT BODY {}"] * 8)
        answer = without_progress(client.command(b"SEARCH " + keys, *[b"a" * 4000 + b"b"] * 8))
        assert answer == [b"* SEARCH 1", answer[-1]]


def without_progress(lines: list[bytes]) -> list[bytes]:
    """An answer without what a slow machine tells of it on its way (RFC 9585)."""
    return [line for line in lines if b"[INPROGRESS" not in line]


# --- Names


@pytest.mark.parametrize(
    "pattern",
    [
        b"*%" * 4000,
        b"%" * 30_000,
        b"*a" * 15_000,
        b"*" * 30_000 + b"x",
        b"%/" * 10_000,
        b"*%*%*%",
        b"&" * 100,
        b"(",
        b"\\",
    ],
    ids=["mixed", "percent", "letters", "stars", "levels", "few", "ampersands", "parenthesis", "backslash"],
)
def test_wildcards(imap: Client, pattern: bytes) -> None:
    deep = b"/".join([b"aaaaaaaaaa"] * 10)
    assert imap.command(b"CREATE " + deep)[-1].startswith((b"OK", b"NO [ALREADYEXISTS]"))
    for command in (b'LIST "" {}', b'LSUB "" {}', b"LIST {} *", b'LIST "" {}'):
        answer = imap.command(command, pattern)
        assert answer[-1].startswith((b"OK", b"NO", b"BAD"))
        imap.in_step()


@pytest.mark.parametrize(
    "name",
    [b"..", b".", b"../x", b"a/../b", b"a/..", b"/etc", b"//", b"a//b", b"/", b"a/", b"~root", b"a\x01b", b"a\x7fb", b"a\tb",
     b"a\xffb", b"\xc3\xa4", b"&AAA-", b"&AAoADQ-", b"&Jjo", b"&-&", b"x" * 2000, b"x/" * 200 + b"x", b"../../../../etc/x", b"a\\b",
     b"cur", b"new", b"tmp", b"a.b", b".a", b"dovecot-uidlist", b"mailserver", b"INBOX/../../x", b"&Jjo-&Jjo-", b"&AC8-", b"&AC4-",
     b"\xe2\x80\xae", b"a%b", b"a*b", b" ", b"&gD0-", b"&2D0-", b""],
)  # fmt: skip
def test_mailbox_names(server: Server, name: bytes) -> None:
    """A name is refused, or names one place inside the user's mail: what is made is listed, selected and deleted."""
    with log_in(server, "imaps", NAMES_USER) as client:
        before = client.command(b'LIST "" *')[:-1]
        created = client.command(b"CREATE {}", name)[-1]
        if created.startswith(b"OK"):
            made = [line for line in client.command(b'LIST "" *')[:-1] if line not in before]
            assert made
            assert client.command(b"SELECT {}", name.removesuffix(b"/"))[-1].startswith(b"OK")
            client.command(b"UNSELECT")
            assert client.command(b"DELETE {}", name.removesuffix(b"/"))[-1].startswith(b"OK")
        else:
            assert refused(created), created
        for command in (b"SELECT {}", b"EXAMINE {}", b"STATUS {} (MESSAGES)", b"DELETE {}", b"RENAME {} Other"):
            assert refused(client.command(command, name)[-1]), command
        for command in (b"SUBSCRIBE {}", b"UNSUBSCRIBE {}", b'LIST "" {}', b"RENAME INBOX {}"):
            client.command(command, name)
        assert refused(client.command(b"APPEND {} {}", name + b"-none", b"Subject: x\r\n\r\n")[-1])
        client.in_step()
    root = server.dir / "mail"
    assert {path.name for path in root.iterdir()} <= {
        "example.test",
        "example.org",
        "mailserver-ballast",
        "mailserver-spool",
    }
    local = NAMES_USER.partition("@")[0]
    assert [path.name for path in (root / "example.test" / local).iterdir()] == ["Maildir"]
    assert not (root / "example.test" / "Maildir").exists()


# --- Pipelines


def test_a_hundred_thousand_pipelined_noops(imap: Client) -> None:
    commands = b"".join(b"n%d NOOP\r\n" % number for number in range(100_000))
    imap.send_while_reading(commands)
    for number in range(100_000):
        assert imap.line() == b"n%d OK NOOP completed" % number


def test_commands_in_single_octets(imap: Client) -> None:
    for octet in b"x STATUS {5+}\r\nTrash (MESSAGES)\r\n":
        imap.send(bytes([octet]))
    assert re.match(rb'\* STATUS "?Trash"? \(MESSAGES \d+\)', imap.reply())
    assert imap.reply().startswith(b"x OK")
