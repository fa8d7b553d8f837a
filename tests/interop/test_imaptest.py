"""ImapTest (https://dovecot.github.io/imaptest), where it is installed: its stress, and its scripted tests.

No distribution has it, so that continuous integration does not ask for it either. IMAPTEST_SCRIPTS names the folder of its
scripts (`src/tests` of its source).
"""

from __future__ import annotations

import imaplib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import no_bug
from tests.server import Server
from tests.stress.listener import CLIENTS, EXTRA, SECONDS, emptied

KEYWORDS = "($Label1 $Label2 $Label3 $Label4 $Label5)"
"""It gives each keyword an owner when it is first told of it. A client that has set one before would count as an intruder."""
STATES = ("noop=30", "search=30", "check=10", "uidfetch=30")
"""Commands that it sends seldom, or not at all, unless asked."""

STALE = re.compile("Flags unexpectedly changed for owned message|Owned (?:keyword|flag) changed")
"""What it says of a right server with QRESYNC, too (of Dovecot as often): in a cache it keeps the flags of before its silent STOREs."""


def run(server: Server, mbox: Path, *arguments: str, seconds: float) -> str:
    """What it says."""
    program = shutil.which("imaptest")
    if program is None:
        pytest.skip("imaptest is not installed")
    user, password = server.user_of("example.test")
    done = subprocess.run(
        [
            program,
            "host=127.0.0.1",
            f"port={server.spare_ports[0]}",
            f"user={user}",
            f"pass={password}",
            f"mbox={mbox}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 120,
        check=False,
        cwd=mbox.parent,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr


@pytest.fixture
def mbox(tmp_path: Path) -> Path:
    """Messages of our own in an mbox."""
    path = tmp_path / "mbox"
    with path.open("w", encoding="ascii") as file:
        for number in range(200):
            body = "\n".join(f"line {line} of {number}" for line in range(number % 40 + 1))
            if number % 3 == 0:
                body = f"--b\nContent-Type: text/plain\n\n{body}\n--b\nContent-Type: text/html\n\n<p>x</p>\n--b--"
            kind = "multipart/mixed; boundary=b" if number % 3 == 0 else "text/plain"
            file.write(
                f"From a@example.test  Thu Jan {number % 28 + 1:2} 10:{number % 60:02}:00 2026\n"
                f"From: a{number}@example.test\nTo: b@example.test\nSubject: message {number}\n"
                f"Message-ID: <{number}@example.test>\nMIME-Version: 1.0\nContent-Type: {kind}\n\n{body}\n\n"
            )
    return path


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(tmp_path / "server", append=EXTRA, workers=request.param) as started:
        user, password = emptied(started)
        with imaplib.IMAP4("127.0.0.1", started.spare_ports[0], timeout=60) as client:
            client.login(user, password)
            client.append("INBOX", KEYWORDS, "", b"Subject: keywords\r\n\r\n")
        yield started
    no_bug(started.log)


@pytest.mark.timeout(4 * SECONDS + 300)
@pytest.mark.parametrize("server", [0, 2], ids=["one-process", "two-workers"], indirect=True)
@pytest.mark.parametrize("tracked", ["own_flags", "own_msgs", "own_flags qresync", "own_msgs qresync"])
def test_its_stress_finds_no_error(server: Server, mbox: Path, tracked: str) -> None:
    said = run(server, mbox, f"clients={CLIENTS}", f"secs={SECONDS:.0f}", *tracked.split(), *STATES, seconds=SECONDS)
    errors = [
        line for line in said.split("\n") if "Error" in line and not ("qresync" in tracked and STALE.search(line))
    ]
    assert not errors, "\n".join(errors[:50])
    assert "Logi" in said, said[-2000:]


@pytest.mark.parametrize("server", [0], indirect=True)
def test_its_scripted_tests_pass(server: Server, mbox: Path, tmp_path: Path) -> None:
    scripts = os.environ.get("IMAPTEST_SCRIPTS")
    if scripts is None:
        pytest.skip("IMAPTEST_SCRIPTS is not set")
    own = tmp_path / "scripts"
    shutil.copytree(scripts, own)
    default = own / "default.mbox"
    said = run(server, default if default.exists() else mbox, f"test={own}", seconds=120)
    assert "test groups: 0 failed" in said, said[-6000:]
