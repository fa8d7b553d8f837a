"""A child of `hashing.HashPool`: `python -m mailserver.auth.schemes.hash_process`.

Standard input has one JSON line a request, `{"stored": "{SCHEME}...", "password": base64}`; standard output gets one
line each, `{"right": bool}` or `{"error": sentence}`. The end of input ends it. It imports no Twisted and keeps small.
"""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import signal
import sys
from typing import BinaryIO

from argon2.exceptions import Argon2Error

from mailserver.auth.schemes import schemes

MAX_LINE = 16 * 1024
"""Longest request, octets."""


def answer(line: bytes) -> dict[str, object]:
    """The answer to one request. Passwords and hashes are in no answer."""
    try:
        match json.loads(line):
            case {"stored": str(stored), "password": str(password)}:
                return {"right": schemes.verify(stored, base64.b64decode(password, validate=True))}
            case _:
                return {"error": "not a request"}
    except schemes.BadHash as error:
        return {"error": str(error)}
    except (Argon2Error, MemoryError) as error:
        return {"error": f"{type(error).__name__}: too little memory"}
    except ValueError:
        return {"error": "not a request"}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the input ends, or a line is too long to be a request."""
    while (line := requests.readline(MAX_LINE)).endswith(b"\n"):
        answers.write(json.dumps(answer(line)).encode("ascii") + b"\n")
        answers.flush()


def main() -> None:
    """Serve standard input and output."""
    # Ctrl-C at a terminal reaches the whole group: the server ends us by closing the pipe, after its last answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A core file would hold passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
