"""A child process of `HashPool`: `python -m mailserver.auth.schemes.hash_process`.

Each line of standard input is a JSON request, `{"stored": "{SCHEME}...", "password": base64}`, or for a new entry
`{"scram": {"SHA-256": "rounds,salt"}, "password": base64}`. Standard output gets a line for each, `{"right": bool}`,
`{"made": "{SCHEME}...", "scram": {...}}` or `{"error": sentence}`. The process ends with its input. It imports no Twisted
and stays small.
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

from mailserver.auth.schemes import renewal, schemes

MAX_LINE = 16 * 1024
"""Longest request, octets."""


def answer(line: bytes) -> dict[str, object]:
    """Answer one request. An answer contains no password, and no hash but a new one."""
    try:
        match json.loads(line):
            case {"stored": str(stored), "password": str(password)}:
                return {"right": schemes.verify(stored, base64.b64decode(password, validate=True))}
            case {"scram": dict(scram), "password": str(password)}:
                made, keys = renewal.make_anew(base64.b64decode(password, validate=True), scram)
                return {"made": made, "scram": keys}
            case _:
                return {"error": "malformed request"}
    except schemes.BadHash as error:
        return {"error": str(error)}
    except (Argon2Error, MemoryError) as error:
        return {"error": f"{type(error).__name__}: too little memory"}
    except (ValueError, KeyError, AttributeError):
        return {"error": "malformed request"}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends, or a line is too long."""
    while (line := requests.readline(MAX_LINE)).endswith(b"\n"):
        answers.write(json.dumps(answer(line)).encode("ascii") + b"\n")
        answers.flush()


def main() -> None:
    """Serve standard input and output."""
    # Ctrl-C reaches the whole process group; the server ends this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A core file would contain passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
