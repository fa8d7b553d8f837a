"""Random mutations of valid sessions, over the wire: no bug is logged, nobody else notices, the server lives.

`HOSTILE_SECONDS` makes it longer, another `HOSTILE_SEED` another one.
"""

from __future__ import annotations

import os
import random
import re
import time

import pytest

from tests.hostile.wire import Client, log_in
from tests.server import Server

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "2"))
USER = "u000@example.test"

IMAP = [
    b"CAPABILITY", b"NOOP", b"ID NIL", b'ID ("name" "x")', b"NAMESPACE", b"ENABLE CONDSTORE", b'LIST "" *', b'LSUB "" %', b"SELECT INBOX",
    b"EXAMINE Sent", b"CREATE a/b", b"RENAME a c", b"DELETE c/b", b"SUBSCRIBE c", b"UNSUBSCRIBE c", b"STATUS INBOX (MESSAGES UNSEEN UIDNEXT)",
    b'APPEND INBOX (\\Seen key) "17-Jul-1996 02:44:25 -0700" {30+}\r\nSubject: x\r\nFrom: a@b\r\n\r\nok\r\n', b"FETCH 1:* (FLAGS UID ENVELOPE)",
    b"FETCH 1 BODY[HEADER.FIELDS (SUBJECT FROM)]<0.100>", b"UID FETCH 1:* BODYSTRUCTURE", b"FETCH 2 (BODY.PEEK[1.MIME] BODY[2.TEXT] RFC822.SIZE)",
    b"STORE 1:2 +FLAGS.SILENT (\\Flagged $Work)", b"UID STORE 1 -FLAGS (\\Flagged)", b"STORE 1 FLAGS ()", b"COPY 1 Trash", b"UID MOVE 1 Trash",
    b"SEARCH OR (FROM a NOT SEEN) HEADER Subject x", b"UID SEARCH RETURN (MIN MAX ALL COUNT) SINCE 1-Jan-2020", b"SEARCH CHARSET UTF-8 TEXT {2+}\r\n\xc3\xa4",
    b"SEARCH UID 1:5,7 LARGER 10 KEYWORD x", b"EXPUNGE", b"UID EXPUNGE 1", b"CLOSE", b"UNSELECT", b"CHECK", b"IDLE\r\nDONE",
]  # fmt: skip
POP3 = [
    b"CAPA",
    b"STAT",
    b"LIST",
    b"LIST 1",
    b"UIDL",
    b"UIDL 2",
    b"RETR 1",
    b"TOP 1 10",
    b"DELE 3",
    b"NOOP",
    b"RSET",
    b"LAST",
]
SMTP = [
    b"EHLO x", b"HELO x", b"LHLO x", b"MAIL FROM:<u000@example.test> SIZE=100 BODY=8BITMIME", b"RCPT TO:<u000@example.test>",
    b"RCPT TO:<u000+Sent@example.test>", b"DATA\r\nFrom: u000@example.test\r\nSubject: x\r\n\r\n..x\r\n.",
    b"BDAT 40\r\nFrom: u000@example.test\r\nSubject: x\r\n\r\nabcde", b"BDAT 10 LAST\r\nabcdefgh\r\n", b"RSET", b"NOOP", b"VRFY x", b"HELP", b"EXPN x",
    b"MAIL FROM:<>", b'RCPT TO:<"a b"@example.test>',
]  # fmt: skip
SPICE = [
    b"\0", b"\r", b"\n", b"\r\n", b"\xff", b"\xc3\xa4", b"{", b"}", b"{3}", b"{3+}\r\n", b"{0}", b"{99999999999999999999}", b"~{1+}\r\n", b"(", b")", b"((((", b'"',
    b"\\", b"*", b"%", b"4294967295", b"4294967296", b"0", b"-1", b"1:*", b" ", b"  ", b"NIL", b"&", b"&AAA-", b"[", b"]", b"<", b">", b".", b"..",
    b"\r\n.\r\n", b"a" * 300, b"a" * 9000, b"UID ", b"=?utf-8?q?x?=", b"/", b"+", b",", b":", b"INBOX", b"\x7f", b"\t", b"1_0", b"\xd9\xa1",
]  # fmt: skip


def mutate(dice: random.Random, data: bytes) -> bytes:
    for _ in range(dice.choice((0, 0, 1, 1, 2, 5))):
        at, end = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
        match dice.randrange(6):
            case 0:
                data = data[:at] + dice.choice(SPICE) + data[at:]
            case 1:
                data = data[:at] + data[min(end, at + 4) :]
            case 2:
                data = data[:at] + dice.choice(SPICE) + data[min(end, at + 4) :]
            case 3:
                data = data[:end] + data[at:end] + data[end:]
            case 4:
                data = data[:at] + dice.randbytes(dice.randint(1, 4)) + data[at + 1 :]
            case 5:
                words = data.split(b" ")
                dice.shuffle(words)
                data = b" ".join(words)
    return data


def start(server: Server, protocol: str, dice: random.Random) -> Client:
    if protocol in ("imap", "pop3", "submission") or dice.random() < 0.1:
        return Client(server, protocol)
    return log_in(server, protocol, USER)


@pytest.mark.parametrize("protocol", ["imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp"])
def test_mutations(server: Server, protocol: str) -> None:
    dice = random.Random(f"{protocol} {os.environ.get('HOSTILE_SEED', '1')}")
    lines = IMAP if protocol.startswith("imap") else POP3 if protocol.startswith("pop3") else SMTP
    end = time.monotonic() + SECONDS
    sessions = 0
    while time.monotonic() < end:
        sessions += 1
        client = start(server, protocol, dice)
        client.socket.settimeout(0.02)
        for number in range(40):
            tag = b"f%d " % number if lines is IMAP else b""
            data = mutate(dice, tag + dice.choice(lines)) + b"\r\n"
            if b"LOGOUT" in data or b"QUIT" in data:
                continue
            try:
                pieces = [data] if dice.random() < 0.8 else re.findall(rb"(?s).{1,7}", data)
                for piece in pieces:
                    client.send(piece)
                client.socket.recv(1 << 20)
            except TimeoutError:
                pass
            except OSError:
                break
            if time.monotonic() > end:
                break
        if lines is not IMAP and dice.random() < 0.3:
            client.send_cut(b"\r\nQUIT\r\n")
        client.close()
    assert sessions
