"""The child's side of the pipe."""

import base64
import io
import json
from typing import Any

import pytest

from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.hash_process import MAX_LINE, answer, serve

STORED = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"


def request(stored: str, password: bytes) -> bytes:
    return json.dumps({"stored": stored, "password": base64.b64encode(password).decode()}).encode() + b"\n"


def test_right_and_wrong() -> None:
    assert answer(request(STORED, b"secret")) == {"right": True}
    assert answer(request(STORED, b"Secret")) == {"right": False}


def test_a_new_entry() -> None:
    line = json.dumps({"scram": {"SHA-256": "4096,c2FsdA=="}, "password": base64.b64encode(b"secret").decode()})
    made: dict[str, Any] = answer(line.encode())
    assert schemes.verify(made["made"], b"secret")
    assert made["scram"]["SHA-256"].startswith("4096,c2FsdA==,")


@pytest.mark.parametrize(
    "line",
    [
        b'{"scram": {"MD5": ""}, "password": "YQ=="}',
        b'{"scram": {"SHA-1": 1}, "password": "YQ=="}',
        b'{"scram": {}, "password": "!"}',
    ],
)
def test_a_new_entry_that_cannot_be(line: bytes) -> None:
    assert answer(line) == {"error": "malformed request"}


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"{}", b'{"stored": 1, "password": ""}', b'{"stored": "{PLAIN}x", "password": "!"}', b"\xff"],
)
def test_what_is_no_request(line: bytes) -> None:
    assert answer(line) == {"error": "malformed request"}


def test_errors_tell_nothing_of_the_secret() -> None:
    told = json.dumps(answer(request("{ROT13}hunter2", b"hunter3")))
    assert "ROT13" in told
    assert "hunter" not in told


def test_serves_until_the_end_of_input() -> None:
    answers = io.BytesIO()
    serve(io.BytesIO(request(STORED, b"secret") + request(STORED, b"no") + b'{"sto'), answers)
    assert answers.getvalue() == b'{"right": true}\n{"right": false}\n'


def test_a_line_without_end_is_not_collected() -> None:
    answers = io.BytesIO()
    serve(io.BytesIO(b"x" * MAX_LINE + request(STORED, b"secret")), answers)
    assert answers.getvalue() == b""


def test_the_longest_request_fits() -> None:
    stored = "{PLAIN}" + "x" * 2048
    assert len(request(stored, b"y" * schemes.MAX_PASSWORD)) < MAX_LINE
