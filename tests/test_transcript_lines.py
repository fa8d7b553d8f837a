"""The transcript runner of POP3 and SMTP: it accepts what is right, and wrong answers fail."""

from __future__ import annotations

import pytest

from tests.imap.test_transcript_runner import Scripted
from tests.transcript import Malformed, Mismatch, read
from tests.transcript_match import Broken
from tests.transcript_run import run


def play(protocol: str, body: str, *answers: bytes) -> Scripted:
    server = Scripted(*answers, closed="closed" in body)
    run(read(f"capabilities: X\n\n{body}", protocol), [server])
    return server


RIGHT = [
    ("pop3", "ok noop", b"+OK\r\n"),
    ("pop3", "err [auth] pass x", b"-ERR [AUTH] no\r\n"),
    ("pop3", "ok stat\n* 2 $octets", b"+OK 2 320\r\n"),
    ("pop3", "ok list\n* 1 5\n! 2 $", b"+OK 1 message\r\n1 5\r\n.\r\n"),
    ("pop3", "ok list 1\n* 1 5", b"+OK 1 5\r\n"),
    ("pop3", "ok retr 1\n* {{{\na\n.b\n}}}", b"+OK\r\na\r\n..b\r\n.\r\n"),
    ("pop3", "ok capa\n* sasl ...", b"+OK\r\nTOP\r\nSASL PLAIN LOGIN\r\n.\r\n"),
    ("submission", "250 [2.1.0] mail from:<>", b"250 2.1.0 ok\r\n"),
    ("submission", "250 ehlo x\n* size $\n! starttls", b"250-x\r\n250 SIZE 7\r\n"),
    ("lmtp", "250,550 bdat {{{+\na\n}}} last", b"250 2.0.0 a\r\n550 5.1.1 b\r\n"),
    ("lmtp", "503 data {{{\na\n}}}", b"503 5.5.1 no\r\n"),
    ("lmtp", "221 quit\nclosed", b"221 bye\r\n"),
]


@pytest.mark.parametrize(("protocol", "body", "answer"), RIGHT)
def test_right(protocol: str, body: str, answer: bytes) -> None:
    play(protocol, body, answer)


WRONG = [
    ("pop3", "ok noop", b"-ERR\r\n"),
    ("pop3", "err noop", b"+OK\r\n"),
    ("pop3", "err [auth] pass x", b"-ERR [SYS/TEMP] no\r\n"),
    ("pop3", "err [auth] pass x", b"-ERR no\r\n"),
    ("pop3", "ok stat\n* 2 $octets", b"+OK 3 320\r\n"),
    ("pop3", "ok list\n* 1 5", b"+OK\r\n1 6\r\n.\r\n"),
    ("pop3", "ok list\n! 2 $", b"+OK\r\n2 6\r\n.\r\n"),
    ("pop3", "ok list", b"+OK\r\n2 6\r\n"),
    ("pop3", "ok retr 1\n* {{{\na\n}}}", b"+OK\r\nb\r\n.\r\n"),
    ("pop3", "ok dele $number", b"+OK\r\n"),
    ("submission", "250 [2.1.0] mail from:<>", b"250 2.0.0 ok\r\n"),
    ("submission", "250 noop", b"500 no\r\n"),
    ("submission", "250 noop", b"hello\r\n"),
    ("submission", "250 noop", b"250-half\r\n"),
    ("submission", "250 ehlo x\n* size $", b"250-x\r\n250 SIZE\r\n"),
    ("submission", "250 ehlo x\n! starttls", b"250-x\r\n250 STARTTLS\r\n"),
    ("lmtp", "250,550 bdat {{{+\na\n}}} last", b"250 a\r\n250 b\r\n"),
    ("lmtp", "250,550 bdat {{{+\na\n}}} last", b"250 a\r\n"),
    ("lmtp", "250 data {{{\na\n}}}", b"503 5.5.1 no\r\n"),
    ("lmtp", "221 quit\nC: NOOP", b"221 bye\r\n250 more\r\n"),
]


@pytest.mark.parametrize(("protocol", "body", "answer"), WRONG)
def test_wrong(protocol: str, body: str, answer: bytes) -> None:
    with pytest.raises((Mismatch, Broken)):
        play(protocol, body, answer)


def test_data_is_stuffed_and_sent_when_it_is_asked_for() -> None:
    server = play("submission", "250 data {{{\n.a\nb\n}}}", b"354 go\r\n", b"250 2.0.0 ok\r\n")
    assert server.sent == [b"data\r\n", b"..a\r\nb\r\n.\r\n"]


def test_a_chunk_is_sent_with_its_size() -> None:
    server = play("lmtp", "250 bdat {{{+\n.a\n}}} last", b"250 2.0.0 ok\r\n")
    assert server.sent == [b"bdat 4 last\r\n.a\r\n"]


def test_values_stand_in_later_commands() -> None:
    server = play("pop3", "ok uidl\n* 1 $id\nok xfind $id", b"+OK\r\n1 abc\r\n.\r\n", b"+OK\r\n")
    assert server.sent[1] == b"xfind abc\r\n"


@pytest.mark.parametrize(
    ("protocol", "source"),
    [
        ("pop3", "capabilities: X\n\nno noop"),
        ("pop3", "capabilities: X\nstate: selected\n\nok noop"),
        ("lmtp", "capabilities: X\n\nok noop"),
        ("lmtp", "capabilities: X\n\n99 noop"),
        ("lmtp", "capabilities: X\nstate: auth\n\n250 noop"),
    ],
)
def test_malformed(protocol: str, source: str) -> None:
    with pytest.raises(Malformed):
        read(source, protocol)
