"""Started as root: the master stays it and reads what is root's alone; whoever serves is the configured user for good."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.live.test_reload import serial, swap_certificate
from tests.live.test_user import USER, give, identity, listeners, wrapper
from tests.refs import refs_in
from tests.server import ROOT, Server
from tests.workers.processes import alive, family, kill, master, replace_all


@pytest.fixture
def server(low_port: int) -> Iterator[Server]:
    if os.getuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("these tests are for root")
        pytest.skip("these tests are for root")
    with tempfile.TemporaryDirectory(prefix="mailserver-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = Server(directory, edit={'user = "root"': f'user = "{USER}"'}, append=listeners(low_port), workers=2)
        for made in ("sockets", "log"):
            (directory / made).mkdir()
        give(directory, "mail", "users", "log")
        shutil.rmtree(directory / "run")
        (directory / "run").mkdir(mode=0o700)  # root's, as systemd makes it
        server.extra = {"RUNTIME_DIRECTORY": str(directory / "run")}
        server.wrapper = wrapper(directory)
        yield server


def close_keys(server: Server) -> None:
    for path in (server.dir / "certs").glob("*.key"):
        os.chown(path, 0, 0)
        path.chmod(0o600)


def test_only_the_master_is_root_and_its_keys_are_roots_alone(server: Server, low_port: int) -> None:
    mail = pwd.getpwnam(USER)
    with server:
        eventually(lambda: len(family(server)) == 5)  # the zygote, two workers, a process for passwords each
        processes = family(server)
        for process in processes:
            uids, gids, groups = identity(process)
            assert uids == [str(mail.pw_uid)] * 4
            assert gids == [str(mail.pw_gid)] * 4
            assert "0" not in groups
            assert "CapPrm:\t0000000000000000" in Path(f"/proc/{process}/status").read_text()
        assert identity(master(server))[0] == ["0"] * 4
        with logged_in(server, "imaps", host="127.0.0.93", port=low_port) as client:
            client.send(b"a CREATE made\r\n")
            client.until(rb"a OK")
        made = server.maildir(server.user_of("example.test")[0]) / ".made"
        assert made.stat().st_uid == mail.pw_uid
        assert (server.dir / "run/control").stat().st_uid == mail.pw_uid
        assert (server.dir / "run").stat().st_uid == 0, "nobody who serves may put up another control socket"
        before = serial(server)
        swap_certificate(server)
        close_keys(server)
        # A port below 1024 as well: the master may still open it.
        server.config.write_text(
            server.config.read_text()
            + f'\n[[listener]]\nprotocol = "imaps"\nport = {low_port}\naddresses = ["127.0.0.94"]\n'
        )
        assert "mail.example.test: taken up" in server.run_cli("reload", "--config", str(server.config)).stdout
        renewed = serial(server)
        assert renewed != before
        replace_all(server)
        assert serial(server) == renewed
        with Client(server, "imaps", host="127.0.0.94", port=low_port) as client:
            client.greeting()
        processes += family(server)
    assert not (server.dir / "sockets/lmtp").exists()
    assert not any(map(alive, processes))
    no_bug(server.log)


def test_root_explains_the_refusals_of_workers_that_are_not(server: Server) -> None:
    run = server.dir / "run"
    run.chmod(0o711)  # as the unit has it
    for owner in (USER, "daemon"):
        # Records of another user, as after a change of the configured one.
        records = run / "explain"
        if owner != USER:
            os.chown(records, pwd.getpwnam(owner).pw_uid, -1)
        with server:
            with Client(server, "imaps") as client:
                client.greeting()
                (ref,) = refs_in(client.try_login("nobody@example.test", "x"))
            said = server.run_cli("explain", ref, "--config", str(server.config)).stdout
            assert "unknown user" in said
            assert records.stat().st_uid == pwd.getpwnam(USER).pw_uid
            assert records.stat().st_mode & 0o777 == 0o700
            assert run.stat().st_uid == 0
        assert "not recorded" not in server.log


@pytest.mark.parametrize(("right", "result"), [(True, "would succeed"), (False, "be refused: wrong password")])
def test_root_tries_a_login_as_the_configured_user(server: Server, right: bool, result: str) -> None:
    close_keys(server)
    user, password = server.user_of("example.test")
    done = subprocess.run(
        [*server.wrapper, sys.executable, "-m", "mailserver.cli", "auth", "test", user, "--config", str(server.config)],
        input=f"{password if right else 'wrong'}\n",
        env=server.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result in done.stdout, done.stdout + done.stderr
    assert done.returncode == (not right)


def may_connect(path: Path, user: str, *groups: str) -> bool:
    """May a process of a user, in its own group or these, connect to a Unix socket?"""
    who = pwd.getpwnam(user)
    numbers = [grp.getgrnam(name).gr_gid for name in groups] or [who.pw_gid]
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(numbers)
            os.setgid(who.pw_gid)
            os.setuid(who.pw_uid)
            socket.socket(socket.AF_UNIX).connect(str(path))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_who_may_deliver_is_said_and_held_to_also_after_a_reload(server: Server) -> None:
    """As LMTP asks for no password, whoever can connect delivers mail of any sender."""
    path = server.dir / "sockets/lmtp"
    with server:
        assert (
            f"serving lmtp on {path} (STARTTLS): root and user mail and group mail can connect (mode 0660) event="
            in server.log
        )
        assert "warning: lets only root and user mail connect" in server.log
        assert may_connect(path, USER)
        assert not may_connect(path, "nobody")
        before = path.stat().st_ino
        server.replace(f'socket = "{path}"\n', f'socket = "{path}"\nsocket_group = "daemon"\nsocket_mode = "0620"\n')
        told = server.run_cli("reload", "--config", str(server.config)).stdout
        assert f"{path}: root and user mail and group daemon can connect" in told
        assert (path.stat().st_ino, path.stat().st_mode & 0o777) == (before, 0o620)
        assert may_connect(path, "nobody", "daemon")
        assert not may_connect(path, "nobody")


@pytest.mark.parametrize("found", ["none", "the user's", "with more in it"])
def test_the_runtime_dir_is_roots_unless_it_is_for_more(server: Server, found: str) -> None:
    run = server.dir / "run"
    run.rmdir()
    server.extra = {}
    if found != "none":
        run.mkdir(mode=0o700)
        if found == "with more in it":
            (run / "note").touch()
        give(server.dir, "run")
    with server:
        uid = pwd.getpwnam(USER).pw_uid
        assert run.stat().st_uid == (uid if found == "with more in it" else 0)
        told = "lets other users replace the control socket"
        assert (told in server.log) == (found == "with more in it")
        assert server.run_cli("status", "--config", str(server.config)).returncode == 0
        if found != "with more in it":
            assert may_connect(run / "control", USER), "who serves may ask as well"


def test_the_log_file_is_the_users_and_reopened_by_all(server: Server) -> None:
    path = server.dir / "log/mail.log"
    server.replace("[server]\n", f'[server]\nlog_file = "{path}"\n')
    server.log_path = path
    with server:
        assert path.stat().st_uid == pwd.getpwnam(USER).pw_uid
        with logged_in(server, "imaps"):
            pass
        eventually(lambda: "logout session=" in path.read_text())
        path.rename(server.dir / "log/old.log")
        kill(master(server), 10)
        eventually(path.exists)
        assert path.stat().st_uid == pwd.getpwnam(USER).pw_uid
        for _ in range(8):
            with logged_in(server, "imaps"):
                pass
        eventually(lambda: path.read_text().count("logout session=") == 8)
        assert "] reloaded" in server.hang_up()


BACKEND = """
import os

def check_backend(argument):
    print("said aloud")
    if argument == "dies":
        os._exit(3)
    raise ValueError(f"judged by {os.geteuid()} {os.getuid()} {0 in os.getgroups()}")
"""


@pytest.mark.parametrize("argument", ["speaks", "dies"])
def test_somebodys_back_end_is_judged_as_the_services_user(server: Server, argument: str) -> None:
    site = server.dir / "site"
    plugins = site / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    maker = 'from mailserver.auth.plugins import AuthBackendMaker\nx = AuthBackendMaker("theirs", "theirs", "x")\n'
    (plugins / "theirs_plugin.py").write_text(maker)
    (site / "theirs.py").write_text(BACKEND)
    server.extra["PYTHONPATH"] = f"{ROOT}:{site}"
    server.replace("backends = [", f'backends = ["theirs:{argument}", ')
    done = server.run(*server.command(), "--check")
    assert done.returncode == 1
    if argument == "speaks":
        uid = pwd.getpwnam(USER).pw_uid
        assert f"judged by {uid} {uid} False" in done.stderr
    else:
        words = f"[auth] backends: cannot be checked as user {USER!r}: the child process that checks them has ended"
        assert words in done.stderr
