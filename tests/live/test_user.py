"""Started as root: it binds, becomes the configured user for good, and only then reads or answers anything."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import Client, logged_in
from tests.live.conftest import no_bug
from tests.server import Server

USER = "mail"


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.getuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("these tests are for root")
        pytest.skip("these tests are for root")


@pytest.fixture
def server(low_port: int) -> Iterator[Server]:
    """What it writes, and the keys that it reads, are the user's; the rest is root's."""
    # Not below pytest's own directory, which each of its runs closes to other users again.
    with tempfile.TemporaryDirectory(prefix="mailserver-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = Server(directory, edit={'user = "root"': f'user = "{USER}"'}, append=listeners(low_port), workers=0)
        (directory / "sockets").mkdir()
        give(directory, "mail", "users", "certs", "state", "sockets")
        shutil.rmtree(directory / "run")
        (directory / "run").mkdir(mode=0o700)  # root's, as systemd makes it
        server.extra = {"RUNTIME_DIRECTORY": str(directory / "run")}
        server.wrapper = wrapper(directory)
        yield server


def give(directory: Path, *names: str) -> None:
    """Make files and directories in a directory the user's."""
    subprocess.run(["chown", "-R", f"{USER}:", *(str(directory / name) for name in names)], check=True)


def wrapper(directory: Path) -> list[str]:
    """Where the interpreter stands in a home that others may not enter: a mount namespace in which they may."""
    prefix = Path(sys.base_prefix).resolve()
    closed = [path for path in prefix.parents if not path.stat().st_mode & 0o001]
    if not closed:
        return []
    kept = directory / "interpreter"
    kept.mkdir()
    script = (
        f'mount --bind "{prefix}" "{kept}"; mount -t tmpfs -o mode=755 tmpfs "{closed[-1]}"; mkdir -p "{prefix}"; '
        f'mount --bind "{kept}" "{prefix}"; exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-ec", script, "sh"]


def listeners(low_port: int) -> str:
    """One at a port that only root may bind, and one in the file system."""
    return f"""
[[listener]]
protocol = "imaps"
port = {low_port}
addresses = ["127.0.0.93"]

[[listener]]
protocol = "lmtp"
socket = "{{dir}}/sockets/lmtp"
"""


def identity(pid: int) -> tuple[list[str], list[str], set[str]]:
    """Uids and gids (real, effective, saved, of the file system), and further groups."""
    status = Path(f"/proc/{pid}/status").read_text()

    def words(key: str) -> list[str]:
        found = re.search(rf"^{key}:(.*)$", status, re.MULTILINE)
        assert found is not None
        return found[1].split()

    return words("Uid"), words("Gid"), set(words("Groups"))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_becomes_the_user_for_good_and_its_children_too(server: Server, low_port: int) -> None:
    mail = pwd.getpwnam(USER)
    with server:
        assert server.process is not None
        processes = [server.process.pid, *children(server.process.pid)]
        assert len(processes) == 3, "the server and two processes that check passwords"
        for process in processes:
            uids, gids, groups = identity(process)
            assert uids == [str(mail.pw_uid)] * 4
            assert gids == [str(mail.pw_gid)] * 4
            assert "0" not in groups
            status = Path(f"/proc/{process}/status").read_text()
            assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
            assert re.search(r"^CapPrm:\s+0+$", status, re.MULTILINE)
        with logged_in(server, "imaps", host="127.0.0.93", port=low_port) as client:
            client.send(b"a CREATE made\r\n")
            client.until(rb"a OK")
            client.send(b"b APPEND made {4+}\r\nA: b\r\n")
            client.until(rb"b OK")
        made = server.maildir(server.user_of("example.test")[0]) / ".made"
        for path in (made, *made.rglob("*")):
            assert (path.stat().st_uid, path.stat().st_gid) == (mail.pw_uid, mail.pw_gid), path
        assert Path(server.dir / "run/control").stat().st_uid == mail.pw_uid
        with socket.socket(socket.AF_UNIX) as mta:
            mta.connect(f"{server.dir}/sockets/lmtp")
            assert mta.recv(3) == b"220"
        server.run_cli("reload", "--config", str(server.config))
        # A change of the listener on the port below 1024 keeps the socket that root bound.
        server.replace('addresses = ["127.0.0.93"]', 'addresses = ["127.0.0.93"]\nproxy_from = ["192.0.2.0/24"]')
        assert f"serving imaps on 127.0.0.93:{low_port}" in server.hang_up()
        with Client(server, "imaps", host="127.0.0.93", port=low_port) as client:
            client.greeting()
    assert not (server.dir / "sockets/lmtp").exists()
    no_bug(server.log)


def test_it_cannot_read_what_is_roots(server: Server) -> None:
    key = server.dir / "certs/mail.example.org.key"
    os.chown(key, 0, 0)
    key.chmod(0o600)
    with server:
        found = server.wait_for(r"TLS certificate host=mail.example.org warning=(.*)\n")
    assert "key cannot be read: Permission denied" in found[1]
    assert "served meanwhile: self-signed" in found[1]
    assert str(key) in server.log


def test_without_a_user_in_the_configuration_it_does_not_start(server: Server) -> None:
    server.replace(f'user = "{USER}"\n', "")
    done = server.run(*server.command())
    assert done.returncode != 0
    assert "[server] user" in done.stderr
    assert "serving" not in done.stdout
