"""The password of a private key: the first line of a file, or of a command's output."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from mailserver.config.model import Domain
from mailserver.tls.keypair.pem import Fault, read_file
from mailserver.types import Secret

COMMAND_TIME: Final = 10.0
"""Timeout of the command, in seconds; the start waits for it."""

MAX_PASSWORD: Final = 1024
"""Maximum length of a password in OpenSSL, in octets (its PEM_BUFSIZE)."""

MAX_OUTPUT: Final = 4096
"""Maximum output of the command, in octets."""


def read_password(domain: Domain, faults: list[Fault]) -> Secret | None:
    """Read the password of a domain's keys; None without one. `faults` gets faults, never the content."""
    if domain.key_password_file is not None:
        return read_password_file(domain.key_password_file, faults)
    if domain.key_password_command:
        octets = _run(domain.key_password_command, faults)
        return None if octets is None else _first_line(octets, "key_password_command", faults)
    return None


def read_password_file(path: Path, faults: list[Fault]) -> Secret | None:
    """Read the password from a file; None, and a fault in `faults`, if there is none."""
    octets = read_file(path, "key_password_file", faults)
    return None if octets is None else _first_line(octets, "key_password_file", faults)


def _first_line(octets: bytes, key: str, faults: list[Fault]) -> Secret | None:
    line = octets.partition(b"\n")[0].removesuffix(b"\r")
    if 0 < len(line) <= MAX_PASSWORD:
        return Secret(line)
    what = "holds no password on its first line" if not line else f"gives more than {MAX_PASSWORD} octets"
    faults.append(Fault(key, what))
    return None


def _run(command: tuple[str, ...], faults: list[Fault]) -> bytes | None:
    """Return the command's output; None, and a fault, if it fails or takes too long."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        faults.append(Fault("key_password_command", f"cannot be run: {error.strerror}"))
        return None
    with process:
        output, why = _output(process)
        if why:
            # The command and its children.
            os.killpg(process.pid, signal.SIGKILL)
        elif process.wait():
            why = f"failed, with exit status {process.returncode}; run it by hand as the user that reads the key"
    if why:
        faults.append(Fault("key_password_command", why))
        return None
    return output


def _output(process: subprocess.Popen[bytes]) -> tuple[bytes, str]:
    """Return the output once the command has ended, and "" or the reason for killing it."""
    assert process.stdout is not None
    end = time.monotonic() + COMMAND_TIME
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, end - time.monotonic())):
            more = os.read(process.stdout.fileno(), MAX_OUTPUT)
            output += more
            if len(output) > MAX_OUTPUT:
                return b"", f"prints more than {MAX_OUTPUT} octets"
            if not more:
                try:
                    process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    break
                return output, ""
    return b"", f"does not end within {COMMAND_TIME:g} seconds"
