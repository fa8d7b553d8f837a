"""A directory of users on a full and on a read-only file system, under the running server and its commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk.small import SmallDisk, SmallServer
from tests.hostile.conftest import no_bugs
from tests.live.client import Client, deliver, logged_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")

ANNA, BEN, INFO = "anna@example.test", "ben@example.test", "info@example.test"


@pytest.fixture(params=[0, 2], ids=["one-process", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallServer]:
    server = SmallServer(tmp_path / "server", workers=request.param, in_directory=True)
    server.disk = SmallDisk(server.dir, "size=4m", server.dir / "accounts")
    try:
        with server:
            yield server
        no_bugs(server.log)
    finally:
        server.disk.close()


def inside(server: SmallServer, *command: str) -> subprocess.CompletedProcess[str]:
    """A command that sees the small file system."""
    enter = ["nsenter", "--target", str(server.disk.holder.pid), "--mount", f"--wd={server.dir}"]
    return subprocess.run(
        [*enter, *command], capture_output=True, text=True, env=server.environment(), timeout=60, check=False
    )


def administer(server: SmallServer, *words: str) -> subprocess.CompletedProcess[str]:
    return inside(server, sys.executable, "-m", "mailserver.cli", *words, "--config", str(server.config))


def try_login(server: SmallServer, user: str, password: str) -> bytes:
    with Client(server, "imaps") as client:
        client.greeting()
        return client.try_login(user, password)


def assert_all_goes_on(server: SmallServer, bystander: Client) -> None:
    """Users log in as before, and nobody else; mail comes; an open session is answered."""
    assert b"OK" in try_login(server, ANNA, server.accounts[ANNA])
    assert b"AUTHENTICATIONFAILED" in try_login(server, ANNA, "wrong")
    assert deliver(server, INFO).startswith(b"250")
    assert deliver(server, "nobody@example.test").startswith(b"550")
    assert bystander.ask(b"n NOOP\r\n").startswith(b"n OK")


def assert_no_change(server: SmallServer, *words: str, because: str) -> None:
    refused = administer(server, *words)
    assert refused.returncode != 0, refused.stdout
    assert because in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_full_disk_takes_no_change_and_stops_no_login(server: SmallServer) -> None:
    with logged_in(server, "imaps") as bystander:
        assert_all_goes_on(server, bystander)
        server.disk.fill()
        assert_all_goes_on(server, bystander)
        assert_no_change(server, "user", "disable", BEN, because="full")
        assert_no_change(server, "alias", "add", "new@example.test", BEN, because="full")
        assert b"OK" in try_login(server, BEN, server.accounts[BEN])
        assert deliver(server, "new@example.test").startswith(b"550")
        assert_all_goes_on(server, bystander)

        server.disk.free()
        assert administer(server, "user", "disable", BEN).returncode == 0
        assert b"AUTHENTICATIONFAILED" in try_login(server, BEN, server.accounts[BEN])
        assert_all_goes_on(server, bystander)


def test_a_read_only_disk_takes_no_change_and_stops_no_login(server: SmallServer) -> None:
    server.stop()
    done = inside(server, "mount", "-o", "remount,ro", str(server.dir / "accounts"))
    assert done.returncode == 0, done.stderr
    with server, logged_in(server, "imaps") as bystander:
        assert_all_goes_on(server, bystander)
        assert_no_change(server, "user", "disable", BEN, because="readonly")
        assert_no_change(server, "user", "app-password", "add", BEN, "--label", "phone", because="readonly")
        listed = administer(server, "user", "list")
        assert listed.returncode == 0, listed.stderr
        assert BEN in listed.stdout
        assert b"OK" in try_login(server, BEN, server.accounts[BEN])
        assert_all_goes_on(server, bystander)
