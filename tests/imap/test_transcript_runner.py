"""The transcript runner itself: it takes what is right, and wrong transcripts fail."""

from __future__ import annotations

import pytest

from tests.transcript import Malformed, Mismatch, read
from tests.transcript_match import Broken, match, match_all, parse, split_responses
from tests.transcript_run import run


class Scripted:
    """A server that gives fixed answers, one for each send."""

    def __init__(self, *answers: bytes, closed: bool = False) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.coming = b""
        self.closed = closed
        self.waited = 0.0

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        if self.answers:
            self.coming += self.answers.pop(0)

    def receive(self, *, patient: bool) -> bytes:
        data, self.coming = self.coming, b""
        return data

    def wait(self, seconds: float) -> None:
        self.waited += seconds

    def hang_up(self) -> None:
        self.closed = True


def play(body: str, *answers: bytes, header: str = "capabilities: IMAP4rev1", closed: bool = False) -> Scripted:
    server = Scripted(*answers, closed=closed)
    run(read(f"{header}\n\n{body}"), [server])
    return server


STORED = b"* 1 FETCH (FLAGS (\\Seen \\Recent x) UID 7)\r\nt1 OK done\r\n"

RIGHT = [
    ("ok noop", b"t1 OK\r\n"),
    ("ok noop", b"* 3 EXISTS\r\nt1 OK x\r\n"),
    ("no [trycreate] copy 1 x", b"t1 NO [TRYCREATE] no\r\n"),
    ("ok [copyuid $v 1:2 $] copy 1:2 x", b"t1 OK [COPYUID 5 1:2 7:8] ok\r\n"),
    ("ok noop\n* 3 exists\n* 1 recent", b"* 1 RECENT\r\n* 3 EXISTS\r\nt1 OK\r\n"),
    ("ok noop\n! 3 exists", b"* 4 EXISTS\r\nt1 OK\r\n"),
    ("ok store 1 +flags \\seen\n* 1 fetch (flags (x \\seen))", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (flags (\\recent x \\seen))", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (flags (\\seen ...))", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (uid 7)\n! 2 fetch $", STORED),
    ('ok x\n* list (...) "/" sent', b'* LIST (\\Sent) "/" "Sent"\r\nt1 OK\r\n'),
    ("ok x\n* 1 fetch (body[] {{{\na(b\n}}})", b"* 1 FETCH (BODY[] {5}\r\na(b\r\n)\r\nt1 OK\r\n"),
    ("ok x\n* search 1 2", b"* SEARCH 1 2\r\nt1 OK\r\n"),
    ("ok x\n* search 1 ...", b"* SEARCH 1 2 3\r\nt1 OK\r\n"),
    ("ok x\n* $a expunge\n* $b expunge", b"* 4 EXPUNGE\r\n* 2 EXPUNGE\r\nt1 OK\r\n"),
    ("ok x\n* $a expunge\n* 4 expunge", b"* 4 EXPUNGE\r\n* 2 EXPUNGE\r\nt1 OK\r\n"),
    ("C: a X\nS: a OK", b"a OK\r\n"),
    ("C: a X\nS:* a OK", b"* 1 EXISTS\r\na OK yes\r\n"),
    ("ok logout\nclosed", b"* BYE\r\nt1 OK\r\n"),
]


@pytest.mark.parametrize(("body", "answer"), RIGHT)
def test_right(body: str, answer: bytes) -> None:
    play(body, answer, closed="closed" in body)


WRONG = [
    ("ok noop", b"t1 NO\r\n"),
    ("ok noop", b"t1 BAD\r\n"),
    ("no noop", b"t1 OK\r\n"),
    ("ok noop", b"t2 OK\r\n"),
    ("ok noop", b""),
    ("ok noop", b"t1 OK"),
    ("ok noop", b"junk\r\nt1 OK\r\n"),
    ("no [trycreate] copy 1 x", b"t1 NO [NONEXISTENT] no\r\n"),
    ("no [trycreate] copy 1 x", b"t1 NO no\r\n"),
    ("ok noop\n* 3 exists", b"* 4 EXISTS\r\nt1 OK\r\n"),
    ("ok noop\n* 3 exists", b"t1 OK\r\n* 3 EXISTS\r\n"),
    ("ok noop\n* 3 exists\n* 3 exists", b"* 3 EXISTS\r\nt1 OK\r\n"),
    ("ok noop\n! $ exists", b"* 4 EXISTS\r\nt1 OK\r\n"),
    ("ok noop\n! $ fetch ...", STORED),
    ("ok noop\n! 1 fetch $", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (flags (\\seen))", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (flags (\\seen x y))", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (flags (\\seen x) uid 8)", STORED),
    ("ok store 1 +flags \\seen\n* 1 fetch (modseq (3))", STORED),
    ("ok x\n* search 2 1", b"* SEARCH 1 2\r\nt1 OK\r\n"),
    ("ok x\n* search 1", b"* SEARCH 1 2\r\nt1 OK\r\n"),
    ("ok x\n* $a expunge\n* $a expunge", b"* 4 EXPUNGE\r\n* 2 EXPUNGE\r\nt1 OK\r\n"),
    ('ok x\n* list (\\sent) "/" "sent"', b'* LIST (\\Sent) "/" "Sent"\r\nt1 OK\r\n'),
    ("ok x\n* 1 fetch (body[] {{{\nab\n}}})", b"* 1 FETCH (BODY[] {4}\r\nabcd)\r\nt1 OK\r\n"),
    ("ok x\n* 1 fetch (flags ())", b"* 1 FETCH (FLAGS ()\r\nt1 OK\r\n"),
    ("C: a X\nS: a OK", b"a OK more\r\n"),
    ("C: a X\nS: a OK", b"* 1 EXISTS\r\na OK\r\n"),
    ("C: a X\nS: a OK", b"a OK\r\n* 1 EXISTS\r\n"),
    ("C: a X\nS:* a OK", b"a NO\r\n"),
    ("C: a X\nC: b X", b"a OK\r\n"),
    ("ok logout\nclosed", b"t1 OK\r\n"),
    ("ok copy $uid x", b"t1 OK\r\n"),
]


@pytest.mark.parametrize(("body", "answer"), WRONG)
def test_wrong(body: str, answer: bytes) -> None:
    with pytest.raises((Mismatch, Broken)):
        play(body, answer)


MALFORMED = [
    "capabilities: X\n\nnoop",
    "capabilities: X\n\n",
    "capabilities: X\n\nok",
    "capabilities: X\nstate: odd\n\nok noop",
    "capabilities: X\nfoo: odd\n\nok noop",
    "capabilities: X\ncapabilities: Y\n\nok noop",
    "connections: 2\n\n1 ok noop",
    "capabilities: X\nconnections: 2\n\nok noop",
    "capabilities: X\nconnections: 2\n\n3 ok noop",
    "capabilities: X\n\nok append x {{{\nbody",
    "capabilities: X\n\nmaybe noop",
    "capabilities: X\n\nwait long",
]


@pytest.mark.parametrize("source", MALFORMED)
def test_malformed(source: str) -> None:
    with pytest.raises(Malformed):
        read(source)


def test_literals_wait_for_the_server() -> None:
    server = play("ok append x {{{\na\nb\n}}} y", b"+ go\r\n", b"t1 OK\r\n")
    assert server.sent == [b"t1 append x {6}\r\n", b"a\r\nb\r\n y\r\n"]
    server = play("ok append x {{{+\na\n}}}", b"t1 OK\r\n")
    assert server.sent == [b"t1 append x {3+}\r\na\r\n\r\n"]


def test_a_refused_literal_is_not_sent() -> None:
    server = play("no append x {{{\na\n}}}", b"t1 NO no\r\n")
    assert server.sent == [b"t1 append x {3}\r\n"]


def test_variables_stand_in_commands() -> None:
    server = play("ok x\n* 1 fetch (uid $uid)\nok uid store $uid y", STORED, b"t2 OK\r\n")
    assert server.sent[1] == b"t2 uid store 7 y\r\n"


def test_keywords_that_look_like_variables() -> None:
    play("ok store 1 +flags $Work\n* 1 fetch (flags ($Work))", b"* 1 FETCH (FLAGS ($Work))\r\nt1 OK\r\n")


def test_escapes_and_clock() -> None:
    server = play("C: a \\x00\\x0d\\x0ab\nS:* b\nwait 60", b"b OK\r\n")
    assert server.sent == [b"a \0\r\nb\r\n"]
    assert server.waited == 60


def test_pushes_of_another_connection() -> None:
    one, two = Scripted(b"+ idling\r\n"), Scripted(b"t1 OK\r\n")
    source = "capabilities: X\nconnections: 2\n\n1 C: a IDLE\n1 S:* +\n2 ok store\n1 * 3 exists\n1 ! $ expunge"
    with pytest.raises(Mismatch):
        run(read(source), [one, two])
    one, two = Scripted(b"+ idling\r\n* 3 EXISTS\r\n"), Scripted(b"t1 OK\r\n")
    run(read(source), [one, two])
    one, two = Scripted(b"+ idling\r\n* 3 EXISTS\r\n* 1 EXPUNGE\r\n"), Scripted(b"t1 OK\r\n")
    with pytest.raises(Mismatch):
        run(read(source), [one, two])


def test_choices_are_tried_until_all_fit() -> None:
    responses = [parse(b"1 EXPUNGE"), parse(b"2 EXPUNGE")]
    assert match_all([parse(b"$x expunge"), parse(b"1 expunge")], responses, {}) == {"x": "2"}


def test_response_codes_are_lists() -> None:
    answer = parse(b"OK [PERMANENTFLAGS (a \\*)] limited")
    assert match(parse(b"ok [permanentflags (\\* a)]"), answer, {}) is not None
    assert match(parse(b"ok"), answer, {}) is not None
    assert match(parse(b"ok [permanentflags (a)]"), answer, {}) is None


def test_splitting_keeps_literals_together() -> None:
    data = b"* 1 FETCH (BODY[] {4}\r\na\r\nb)\r\n* 2 EXISTS\r\n* 3"
    assert split_responses(data) == ([b"* 1 FETCH (BODY[] {4}\r\na\r\nb)", b"* 2 EXISTS"], b"* 3")
    assert split_responses(b"* x {9}\r\nab") == ([], b"* x {9}\r\nab")
