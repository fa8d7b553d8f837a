"""etc/fail2ban with the real fail2ban: its expressions on lines that the server wrote, and a jail that bans by them.

The jail has directories and a socket of its own, and an action that appends to a file: nothing on the machine is changed.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT, Server

FILTER = ROOT / "etc" / "fail2ban" / "filter.d" / "mailserver.conf"
ATTACKER, ATTACKER6, BYSTANDER = "192.0.2.66", "2001:db8::66", "198.51.100.1"
GUESSES = 5
EXTRA = """
[[listener]]
protocol = "imap"
port = {a}
addresses = ["127.0.0.1"]
allow_cleartext = true
proxy_from = ["127.0.0.0/8"]

[bans]
enabled = false
"""
ACTION = """
[Definition]
actionstart =
actionstop =
actioncheck =
actionban = echo ban <ip> >> {written}
actionunban = echo unban <ip> >> {written}
"""
JAIL = """
[DEFAULT]
banaction = written

[mailserver]
enabled = true
filter = mailserver
backend = polling
logpath = {log}
maxretry = {guesses}
findtime = 10m
bantime = 1h
action = written
"""
FORGED = 'x" peer=9.9.9.9 user=y protocol=imap id=1\nguess v1 peer=9.9.9.9 user=y protocol=imap id=1'


@pytest.fixture(autouse=True)
def installed() -> None:
    for program in ("fail2ban-regex", "fail2ban-server", "fail2ban-client"):
        if shutil.which(program) is None:
            message = f"{program} is not installed"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)


@pytest.fixture(params=["text", "json"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    edit = {
        "[auth]\n": "[auth]\nfailure_delay_max = 0.3\nfailure_delay = 0.3\n",
        "[server]\n": f'[server]\nlog_file = "{tmp_path}/mailserver.log"\nlog_format = "{request.param}"\n',
    }
    server = Server(tmp_path / "server", append=EXTRA, edit=edit)
    server.log_path = tmp_path / "mailserver.log"
    with server:
        yield server


def guess(server: Server, peer: str, name: str, password: str) -> None:
    """A refused login of a client by way of a proxy."""
    with socket.create_connection(("127.0.0.1", server.spare_ports[0]), timeout=30) as client:
        family = 6 if ":" in peer else 4
        response = base64.b64encode(f"\0{name}\0{password}".encode())
        client.sendall(f"PROXY TCP{family} {peer} {peer} 40000 143\r\n".encode())
        with client.makefile("rb") as file:
            assert file.readline().startswith(b"* OK")
            client.sendall(b"a AUTHENTICATE PLAIN " + response + b"\r\n")
            answer = file.readline()
        assert answer.startswith(b"a NO"), answer


def matched(text: str, tmp_path: Path) -> list[str]:
    """The addresses that the filter finds in lines, in their order."""
    path = tmp_path / "lines"
    path.write_text(text)
    done = subprocess.run(
        ["fail2ban-regex", "--usedns", "no", "--out", "ip", str(path), str(FILTER)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def test_each_new_guess_is_found_and_nothing_else_in_a_file_and_in_the_journal(server: Server, tmp_path: Path) -> None:
    guess(server, ATTACKER, "info@example.org", "wrong 1")
    guess(server, ATTACKER, "info@example.org", "wrong 1")
    guess(server, ATTACKER, "an odd name", "wrong 2")
    guess(server, ATTACKER6, "info@example.org", "wrong 3")
    guess(server, BYSTANDER, FORGED, "wrong 4")
    found = [ATTACKER, ATTACKER, ATTACKER6, BYSTANDER]
    log = server.log
    assert matched(log, tmp_path) == found
    # As journalctl and syslog show what the service writes to standard output.
    lines = log.splitlines()
    assert matched("".join(f"Dec 02 20:11:04 host mailserver[812]: {line}\n" for line in lines), tmp_path) == found
    assert matched("".join(f"host twistd[812]: {line}\n" for line in lines), tmp_path) == found


def test_a_forged_line_is_not_found(tmp_path: Path) -> None:
    real = "guess v1 peer=9.9.9.9 user=y protocol=imap id=1"
    lines = [
        f'2026-12-02T20:11:04+0000 [mailserver#info 1] login-failed user="{real}"',
        f"2026-12-02T20:11:04+0000 [mailserver#info 1] request path=/{real}",
        f"2026-12-02T20:11:04+0000 [mailserver#info 1] [mailserver#info] {real}",
        f"2026-12-02T20:11:04+0000 [mailserver#warn 1] {real}",
        f'2026-12-02T20:11:04+0000 [mailserver#info] guess v1 peer=1.1.1.1 user="{real} protocol=imap id=1',
        f"\t{real}",
        (
            '{"time": "2026-12-02T20:11:04.114+00:00", "level": "info", "namespace": "mailserver", "event": "login-failed", '
            '"user": "x\\", \\"event\\": \\"guess\\", \\"peer\\": \\"9.9.9.9\\", \\"user\\": \\"y\\", \\"protocol\\": \\"imap\\"}'
        ),
    ]
    assert matched("\n".join(lines) + "\n", tmp_path) == []


def test_a_jail_bans_who_guesses_and_spares_who_repeats(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", directory, symlinks=False)
    shutil.rmtree(directory / "jail.d")
    (directory / "jail.d").mkdir()
    shutil.copy(FILTER, directory / "filter.d")
    written = tmp_path / "written"
    written.touch()
    (directory / "action.d" / "written.conf").write_text(ACTION.format(written=written))
    (directory / "jail.local").write_text(JAIL.format(log=server.log_path, guesses=GUESSES))
    common = ["-c", str(directory), "-s", str(tmp_path / "socket"), "-p", str(tmp_path / "pid")]
    options = [*common, "--loglevel", "INFO", "--logtarget", str(tmp_path / "fail2ban.log"), "--syslogsocket", "none"]
    (directory / "fail2ban.local").write_text("[Definition]\ndbfile = None\n")
    with subprocess.Popen(["fail2ban-server", "-f", *options, "start"], stdout=subprocess.DEVNULL) as daemon:
        try:
            _wait(lambda: _status(common), tmp_path)
            for number in range(3 * GUESSES):
                guess(server, BYSTANDER, "info@example.org", "an old password")
                if number < GUESSES:
                    guess(server, ATTACKER, "info@example.org", f"wrong {number}")
                    guess(server, ATTACKER6, f"user{number}@example.org", "wrong")
            _wait(lambda: len(written.read_text().splitlines()) >= 2, tmp_path)
            time.sleep(2)  # a further ban would come within that time
            assert sorted(written.read_text().splitlines()) == [f"ban {ATTACKER}", f"ban {ATTACKER6}"]
        finally:
            subprocess.run(["fail2ban-client", *common, "stop"], capture_output=True, check=False, timeout=60)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()


def test_the_example_of_a_jail_is_valid(tmp_path: Path) -> None:
    directory = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", directory, symlinks=False)
    shutil.rmtree(directory / "jail.d")
    for part in ("filter.d", "jail.d"):
        shutil.copytree(ROOT / "etc" / "fail2ban" / part, directory / part, dirs_exist_ok=True)
    jail = directory / "jail.d" / "mailserver.conf"
    log = tmp_path / "mailserver.log"
    log.touch()
    jail.write_text(jail.read_text().replace("/var/log/mailserver/mailserver.log", str(log)))
    done = subprocess.run(
        ["fail2ban-client", "-c", str(directory), "-t"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _status(common: list[str]) -> bool:
    done = subprocess.run(
        ["fail2ban-client", *common, "status", "mailserver"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode == 0


def _wait(is_done: object, tmp_path: Path) -> None:
    assert callable(is_done)
    end = time.monotonic() + 60
    while not is_done():
        log = tmp_path / "fail2ban.log"
        assert time.monotonic() < end, log.read_text() if log.exists() else "fail2ban has not begun"
        time.sleep(0.2)
