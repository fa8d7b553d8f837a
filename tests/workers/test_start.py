"""The ways to start it: as a daemon, under systemd; and what keeps it from starting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from twisted.scripts.twistd import ServerOptions

from mailserver import tap
from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.server import Server
from tests.workers.processes import alive, children, of_session


def test_as_a_daemon_the_lines_of_all_are_in_its_log(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2, edit={"runtime_dir = ": 'log_format = "json"\nruntime_dir = '})
    pid_file = tmp_path / "twistd.pid"
    done = server.run(*server.command(f"--pidfile={pid_file}", f"--logfile={server.log_path}"))
    assert done.returncode == 0, done.stderr
    assert '[server] log_format = "json": warning: has no effect' in done.stderr
    eventually(lambda: "ready: " in server.log, 60)
    pid = int(pid_file.read_text())
    processes = [pid, *children(pid), *children(children(pid)[0])]
    try:
        logins = 0

        def all_left() -> bool:
            return server.log.count("logout session=") == logins

        # The kernel chooses a worker for each connection.
        while not all(f"[mailserver#info {shard}] login" in server.log for shard in (0, 1)):
            logins += 1
            with logged_in(server, "imaps"):
                pass
            eventually(all_left)
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: "] reloaded" in server.log)
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not any(map(alive, processes)))
    assert not pid_file.exists()
    assert "Server Shut Down" in server.log
    no_bug(server.log)


@pytest.mark.parametrize("workers", [0, 2])
def test_systemd_hears_of_start_reload_and_stop(tmp_path: Path, workers: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        path = tmp_path / "notify"
        notified.bind(str(path))
        heard: Queue[bytes] = Queue()

        def hear() -> None:
            """All the time: what finds the socket's queue full is lost."""
            while word := notified.recv(1000):
                heard.put(word)

        hearing = threading.Thread(target=hear)
        hearing.start()
        server = Server(tmp_path / "server", workers=workers)
        server.extra = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}

        def next_word() -> bytes:
            while (word := heard.get(timeout=20)) == b"WATCHDOG=1":
                pass
            return word

        try:
            with server:
                assert next_word() == b"READY=1"
                assert heard.get(timeout=20) == b"WATCHDOG=1"
                server.hang_up()
                assert next_word().startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert next_word() == b"READY=1"
            assert next_word() == b"STOPPING=1"
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(path))
            hearing.join()


def test_another_server_has_the_port(tmp_path: Path) -> None:
    """The sockets of a shard share their port, but with those of no other server."""
    server = Server(tmp_path, workers=2)
    with server:
        second = server.run(*server.command())
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1:{server.port('imaps')}" in second.stderr + second.stdout
        with logged_in(server, "imaps"):
            pass


@pytest.mark.parametrize("fault", ["configuration", "port"])
def test_a_start_that_fails_leaves_no_process(tmp_path: Path, fault: str) -> None:
    """The process that forks workers is started before the rest of the configuration is judged."""
    server = Server(tmp_path, workers=2)
    with socket.socket() as other:
        if fault == "port":
            # Connections that have ended are in nobody's way.
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", server.port("imaps")))
            other.listen()
        else:
            server.replace(f"file:{server.dir}/users", "nobody-knows-it:users")
        process = subprocess.Popen(
            server.command(), cwd=server.dir, env=server.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert (b"nobody-knows-it" if fault == "configuration" else b"cannot listen on") in said
    # Its output has come to its end: nobody else has it.
    eventually(lambda: not of_session(process.pid))


def test_the_zygote_takes_more_sockets_than_files_were_allowed_at_first(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    server.wrapper = ["prlimit", "--nofile=40:8192"]
    with server, logged_in(server, "imaps"):
        no_bug(server.log)


@pytest.mark.parametrize(
    ("changed", "settled"),
    [
        ({}, True),
        ({"nodaemon": 0}, False),
        ({"uid": 8}, False),
        ({"gid": 8}, False),
        ({"umask": 0o77}, False),
        ({"chroot": "/srv"}, False),
        ({"rundir": "/srv"}, False),
        ({"logfile": "server.log"}, False),
        ({"syslog": 1}, False),
    ],
)
def test_it_starts_early_only_where_nothing_changes_that_it_inherits(changed: dict[str, Any], settled: bool) -> None:
    options = ServerOptions()
    options.update({"nodaemon": 1, **changed})
    assert tap._is_settled(options) == settled


def test_a_control_socket_that_cannot_be_is_told_and_it_serves(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    (run / "control").mkdir()
    with server, logged_in(server, "imaps"):
        assert "no control socket" in server.log


def test_who_and_status_are_asked_of_all(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    with server:
        clients = [logged_in(server, "imaps") for _ in range(8)]
        said = server.run_cli("who", "--config", str(server.config)).stdout
        assert said.count(server.user_of("example.test")[0]) == 8
        assert server.run_cli("status", "--config", str(server.config)).returncode == 0
        user = server.user_of("example.test")[0]
        server.run_cli("kick", user, "--config", str(server.config))
        assert all(client.line().startswith(b"* BYE") for client in clients)


def test_no_process_takes_modules_from_the_directory_it_is_started_in(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    taken = tmp_path / "taken"
    for name in ("json", "socket", "mailserver"):
        (server.dir / f"{name}.py").write_text(f"open({str(taken)!r}, 'w').close()\nraise SystemExit(9)\n")
    with server, logged_in(server, "imaps"):
        pass
    assert not taken.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_who_connects_while_it_restarts_waits_where_systemd_has_the_sockets(tmp_path: Path, workers: int) -> None:
    server = Server(tmp_path, workers=workers)
    with socket.create_server(("127.0.0.1", 0)) as imaps, socket.socket(socket.AF_UNIX) as lmtp:
        port = imaps.getsockname()[1]
        lmtp.bind(f"{tmp_path}/lmtp")
        lmtp.listen()
        server.handed_over = [imaps, lmtp]
        without = f'{server.config.read_text()}\n[[listener]]\nprotocol = "lmtp"\nsocket = "{tmp_path}/lmtp"\n'
        whole = f'{without}\n[[listener]]\nprotocol = "imaps"\nport = {port}\naddresses = ["127.0.0.1"]\n'
        server.config.write_text(whole)
        for start in (1, 2):
            waiting = [Client(server, "imaps", port=port, tls=False) for _ in range(20)]
            transfer_agent = socket.socket(socket.AF_UNIX)
            transfer_agent.settimeout(60)
            transfer_agent.connect(f"{tmp_path}/lmtp")
            with server, transfer_agent:
                assert transfer_agent.recv(100).startswith(b"220")
                for client in waiting:
                    with client:
                        client.start_tls()
                        client.greeting()
                with logged_in(server, "imaps"):  # at a place of its own
                    pass
                if start == 1:
                    continue
                server.config.write_text(without)
                assert f"systemd holds 127.0.0.1:{port} open" in server.hang_up()
                server.config.write_text(whole)
                server.hang_up()
                with logged_in(server, "imaps", port=port):
                    pass
        no_bug(server.log)
        server.config.write_text(without)
        process = subprocess.run(
            server.command(), cwd=server.dir, env=server.environment(), pass_fds=server.numbers,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert process.returncode == 1
    assert f"systemd holds 127.0.0.1:{port} open" in process.stderr + process.stdout
