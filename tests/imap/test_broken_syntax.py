"""Commands with much syntax of their own: cut after each octet, and with octets changed. None makes a bug.

A bug is logged by `channel.bug`, which fails the test by itself. A new syntax is a line of COMMANDS.
"""

from __future__ import annotations

import random

import pytest

from tests.fakes import Client
from tests.imap.sessions import selected, services

COMMANDS = (
    b'GETQUOTA "User quota"',
    b"GETQUOTAROOT {5+}\r\nINBOX",
    b'SETQUOTA "User quota" (STORAGE 512 MESSAGE 10)',
    b"STATUS INBOX (DELETED DELETED-STORAGE)",
    b'LIST (SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE) "" ("a%" INBOX {1+}\r\nb) RETURN (SUBSCRIBED CHILDREN SPECIAL-USE)',
    b'LIST "" % RETURN (STATUS (MESSAGES UNSEEN SIZE) CHILDREN)',
    b"STATUS INBOX (MESSAGES SIZE MAILBOXID)",
    b"FETCH 1:2 (EMAILID THREADID)",
    b"SEARCH OR EMAILID M00 NOT THREADID T-_a",
    b"SEARCH RETURN (COUNT UPDATE (uid body.peek[header]<0.9>) ALL) ALL",
    b"SORT RETURN (UPDATE (FLAGS)) (DATE) UTF-8 ALL",
    b"NOTIFY SET (selected-delayed (MessageNew (uid body.peek[header]<0.9>) MessageExpunge FlagChange))",
    b'NOTIFY SET STATUS (subtree ("a b" {1+}\r\nc) (MailboxName SubscriptionChange)) (inboxes NONE) (mailboxes INBOX (MessageNew MessageExpunge))',
    b'REPLACE 2 INBOX (\\Seen $x) "17-Jul-1996 02:44:25 -0700" {4+}\r\nabcd',
    b'UID REPLACE * {5+}\r\nINBOX CATENATE (TEXT {4+}\r\nabcd URL "/INBOX/;UID=1/;SECTION=1/;PARTIAL=0.3" TEXT ~{2+}\r\ne\0)',
    b'APPEND INBOX (\\Seen) ~{4+}\r\nabcd (\\Draft) "17-Jul-1996 02:44:25 -0700" {3+}\r\nabc CATENATE (URL {13+}\r\n/INBOX/;UID=1)',
    b"FETCH 1:* (PREVIEW (LAZY) PREVIEW SAVEDATE FLAGS)",
    b"FETCH 1:2 (BINARY.PEEK[1]<0.5> BINARY[] BINARY.SIZE[1.2.3])",
    b"SEARCH SAVEDBEFORE 1-Feb-1994 SAVEDON 2-Feb-1994 NOT SAVEDSINCE 3-Feb-1994 SAVEDATESUPPORTED",
    b'GETMETADATA (MAXSIZE 10 DEPTH infinity) "" (/private/a "/shared/b")',
    b"GETMETADATA INBOX (DEPTH 1) /private/vendor/a/b",
    b"SETMETADATA INBOX (/private/a {3+}\r\nabc /shared/b NIL /shared/c ~{2+}\r\n\0a)",
    b'SETMETADATA "" (/private/filters/values/a "OR SEEN FILTER a")',
    b"SEARCH OR FILTER on-the-road NOT (FILTER a) SINCE 1-Feb-1994",
    b"SEARCH UIDAFTER 12 NOT UIDBEFORE 4294967295",
    b'LIST "" * RETURN (METADATA (/private/a /shared/b) CHILDREN)',
)
WITH_UTF8 = (
    b"APPEND INBOX (\\Seen) UTF8 (~{4+}\r\nabcd) UTF8 (~{3+}\r\n\xc3\xbcx)",
    b"APPEND INBOX CATENATE (UTF8 (~{4+}\r\nabcd) TEXT {1+}\r\nx)",
    b"UID REPLACE * INBOX (\\Seen) UTF8 (~{3+}\r\n\xc3\xbcx)",
    b'SEARCH SUBJECT "\xc3\xbc" FROM {2+}\r\n\xc3\xbc',
    b'CREATE "\xc3\xbc"',
)
"""For sessions with UTF8=ACCEPT."""
OCTETS = b' ()"\\{}[]<>*%:,.+-~0aZ\x00\x7f\xff\r\n'
MUTATIONS = 150
"""Of each command."""


def is_answered(client: Client, data: bytes) -> bool:
    """Send a command that may be broken. Is the session still there, and in step?"""
    client.send(b"x " + data + b"\r\n")
    # Ends whatever literal or IDLE is open.
    client.send(b"x" * 64 + b"\r\nDONE\r\n\r\n")
    client.take()
    return not client.done and client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n")


def begun(*, utf8: bool) -> Client:
    client = selected(services(), messages=2)
    if utf8:
        client.session.utf8 = True
        client.session.enabled.add("UTF8=ACCEPT")
    return client


def tried(broken: list[bytes], *, utf8: bool) -> None:
    client = begun(utf8=utf8)
    for data in broken:
        if not is_answered(client, data):
            # It has said BYE: too many errors, or a literal that is too long.
            assert client.done, data
            client = begun(utf8=utf8)


@pytest.mark.parametrize("command", COMMANDS + WITH_UTF8)
def test_cut_after_each_octet(command: bytes) -> None:
    tried([command[:end] for end in range(1, len(command))], utf8=command in WITH_UTF8)


@pytest.mark.parametrize("command", COMMANDS + WITH_UTF8)
def test_with_octets_changed(command: bytes) -> None:
    source = random.Random(command)
    broken = []
    for _ in range(MUTATIONS):
        octets = bytearray(command)
        for _ in range(source.choice((1, 1, 1, 2, 5))):
            at = source.randrange(len(octets))
            how = source.randrange(3)
            if how == 0:
                octets[at] = source.choice(OCTETS)
            elif how == 1:
                octets.insert(at, source.choice(OCTETS))
            else:
                del octets[at : at + source.randrange(1, 9)]
                octets += b"x" if not octets else b""
        broken.append(bytes(octets))
    tried(broken, utf8=command in WITH_UTF8)
