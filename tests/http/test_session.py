"""What a connection of HTTP answers, and what it does not put up with."""

from __future__ import annotations

import pytest

from mailserver.errors import MailError
from mailserver.http.session import IDLE_TIME, MAX_BODY, MAX_HEAD, MAX_REQUESTS, REQUEST_TIME
from tests.http.world import STATUS, World

GOOD = b"GET /health HTTP/1.1\r\nHost: mail.example.test\r\n\r\n"
WELL = {**STATUS, "workers": [{"worker": 0, "answers": True, "sessions": {"logged_in": 0, "by_tls": []}}]}


def test_an_answer_is_whole_and_the_connection_goes_on() -> None:
    world = World(status=WELL)
    for _ in range(2):
        answered = world.ask(GOOD)
        assert (answered.status, answered.body) == (200, b"ok\n")
        assert answered.fields["x-content-type-options"] == "nosniff"
        assert answered.fields["content-security-policy"].startswith("default-src 'none'")
        assert answered.fields["date"].endswith(" GMT")
        assert "connection" not in answered.fields
    assert not world.over


def test_head_has_the_fields_and_no_body() -> None:
    world = World(status=WELL)
    answered = world.get("/health", method="HEAD")
    assert (answered.status, answered.fields["content-length"]) == (200, "3")
    assert world.ask(GOOD).body == b"ok\n"


@pytest.mark.parametrize("how", ["whole", "bytewise"])
def test_pipelined_requests_are_answered_in_order(how: str) -> None:
    world = World(status=WELL)
    octets = GOOD + GOOD.replace(b"/health", b"/nothing") + GOOD
    if how == "whole":
        world.client.send(octets)
    else:
        world.client.send_bytewise(octets)
    assert [answered.status for answered in world.answers()] == [200, 404, 200]


def test_the_requests_of_one_connection_are_counted() -> None:
    world = World(status=WELL)
    world.client.send(GOOD * (MAX_REQUESTS + 5))
    answers = world.answers()
    assert len(answers) == MAX_REQUESTS
    assert answers[-1].fields["connection"] == "close"
    assert world.over
    assert world.client.channel.drains >= MAX_REQUESTS - 1, "others have had their turn"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"a001 CAPABILITY\r\n\r\n", 400),
        (b"EHLO client.example.test\r\n\r\n", 400),
        (b"USER anna\r\nPASS secret\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: mail.example.test/\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: elsewhere.example.com\r\n\r\n", 421),
        (b"GET http://elsewhere.example.com/health HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 421),
        (b"GET health HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 400),
        (b"GET /health%00 HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 400),
        (b"GET /?" + b"a=b&" * 30 + b" HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 404),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 404),
        (b"DELETE /health HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 405),
        (b"CONNECT mail.example.test:25 HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: mail.example.test\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: mail.example.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: mail.example.test\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /health HTTP/1.1\r\nHost: mail.example.test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (
            b"POST /health HTTP/1.1\r\nHost: mail.example.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n" + GOOD,
            400,
        ),
    ],
)
@pytest.mark.parametrize("how", ["whole", "bytewise"])
def test_bad_requests(octets: bytes, status: int, how: str) -> None:
    world = World(status=WELL)
    if how == "whole":
        world.client.send(octets)
    else:
        world.client.send_bytewise(octets)
    [answered] = world.answers()
    assert answered.status == status
    if status not in (404, 405):
        assert world.over, "nobody knows what follows"


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /" + b"a" * MAX_HEAD * 2,
        b"GET / HTTP/1.1\r\nHost: mail.example.test\r\nX: " + b"a" * MAX_HEAD * 2,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD,
    ],
)
def test_a_long_head_is_refused_before_its_end(octets: bytes) -> None:
    world = World()
    for at in range(0, len(octets), 4096):
        world.client.send(octets[at : at + 4096])
    [answered] = world.answers()
    assert answered.status == 431
    assert world.over


@pytest.mark.parametrize("length", [MAX_BODY + 1, 2**31, 2**64, 10**19])
def test_a_body_too_long_is_refused_before_it_comes(length: int) -> None:
    world = World()
    head = f"POST /health HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    world.client.send(head.encode())
    assert [answered.status for answered in world.answers()] == [413]
    assert world.over


def test_chunks_are_counted() -> None:
    world = World()
    world.client.send(b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    for _ in range(MAX_BODY // 0x4000 + 1):
        world.client.send(chunk)
    assert [answered.status for answered in world.answers()] == [413]


def test_others_have_their_turn_between_many_small_chunks() -> None:
    world = World()
    head = b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    world.client.send(head + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n")
    assert [answered.status for answered in world.answers()] == [405]
    assert world.client.channel.drains >= 5000


def test_who_waits_to_be_asked_for_the_body_is_asked_and_stays_in_step() -> None:
    world = World(status=WELL)
    world.client.send(b"POST /health HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert [answered.status for answered in world.answers()] == [100]
    world.client.send(b"GET /" + GOOD)
    assert [answered.status for answered in world.answers()] == [405, 200]


def test_a_slow_request_is_cut_however_it_drips() -> None:
    world = World()
    for octet in b"GET /health HTTP/1.1\r\nHost: local":
        world.client.send(bytes([octet]))
        world.client.wait(REQUEST_TIME / 20)
        if world.over:
            break
    assert [answered.status for answered in world.answers()] == [408]
    assert world.client.channel.time <= 1000 + REQUEST_TIME + 1


def test_a_slow_body_is_cut() -> None:
    world = World()
    world.client.send(b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
    world.client.wait(REQUEST_TIME)
    assert [answered.status for answered in world.answers()] == [408]
    assert world.over


def test_a_silent_client_is_let_go_without_a_word() -> None:
    world = World(status=WELL)
    world.ask(GOOD)
    world.client.wait(IDLE_TIME - 0.1)
    assert not world.over
    world.client.wait(0.2)
    assert world.over
    assert world.answers() == []


def test_http_1_0_is_answered_and_closed() -> None:
    world = World(status=WELL)
    answered = world.ask(b"GET /health HTTP/1.0\r\n\r\n")
    assert answered.status == 200
    assert world.over


def test_numbers_are_for_some_networks_alone() -> None:
    for path in ("/metrics", "/health"):
        assert World(peer="192.0.2.7").get(path).status == 403
        assert World(peer="::ffff:192.0.2.7").get(path).status == 403
        assert World(peer="::ffff:127.0.0.1", status=WELL).get(path).status == 200
        assert World(peer="::1", status=WELL).get(path).status == 200


def test_names_of_this_server() -> None:
    for host in (
        "mail.example.test:8080",
        "MAIL.example.test.",
        "one.example.net",
        "example.test",
        "autoconfig.example.test",
        "mta-sts.example.test",
        "192.0.2.1",
        "[2001:db8::1]:80",
    ):
        assert World(status=WELL).get("/health", host=host).status == 200, host
    for host in ("two.one.example.net", "autoconfig.example.com", "example.net.", "xn--", "test"):
        assert World(status=WELL).get("/health", host=host).status == 421, host


def test_what_fails_is_told_as_such() -> None:
    assert World(status=MailError("nobody answers")).get("/health").body == b"nobody answers\n"
    world = World(status=ValueError("secret"), allow_bugs=True)
    answered = world.get("/metrics")
    assert (answered.status, answered.body) == (500, b"internal error\n")
    assert len(world.client.channel.bugs) == 1
    silent = {**STATUS, "workers": [{"worker": 1, "answers": False}]}
    answered = World(status=silent).get("/health")
    assert (answered.status, answered.body) == (503, b"worker 1 does not answer\n")


def test_requests_are_logged_without_their_query() -> None:
    world = World(status=WELL)
    world.get("/health?emailaddress=anna@example.test")
    assert world.client.channel.logged == [("request", {"method": "GET", "path": "/health", "status": 200})]
