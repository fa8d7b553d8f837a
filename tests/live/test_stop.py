"""The end: commands in flight finish, idle clients hear it, nothing acknowledged is lost, and it does not take long."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.server import Server

HANG = 20.0
"""Ten times what is promised."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_clients_hear_it_and_the_status_is_0(tmp_path: Path, number: int) -> None:
    server = Server(tmp_path).start()
    with (
        logged_in(server, "imaps") as idle,
        Client(server, "imap") as fresh,
        Client(server, "submission") as smtp,
        Client(server, "lmtp") as lmtp,
        Client(server, "imaps", tls=False) as silent,
    ):
        for client in (fresh, smtp, lmtp):
            client.greeting()
        idle.send(b"a SELECT INBOX\r\n")
        idle.until(rb"a OK")
        idle.send(b"b IDLE\r\n")
        idle.until(rb"\+")
        began = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - began < 15
        assert idle.line().startswith(b"* BYE")
        assert fresh.line().startswith(b"* BYE")
        assert smtp.line().startswith(b"421 ")
        assert lmtp.line().startswith(b"421 ")
        assert silent.rest() == b""
    no_bug(server.log)


def test_a_command_in_flight_finishes(tmp_path: Path) -> None:
    """One whose store operation is held up by another holder of the account's lock, as a backup may."""
    server = Server(tmp_path).start()
    user, _password = server.user_of("example.test")
    with logged_in(server, "imaps") as client:
        client.send(b"a SELECT INBOX\r\n")
        client.until(rb"a OK")
        lock = server.maildir(user) / "dovecot-uidlist.lock"
        holder = subprocess.Popen(["sleep", "30"])
        try:
            lock.write_text(f"{holder.pid}:{socket.gethostname()}")
            client.send(b"n NOOP\r\nb COPY 1 INBOX\r\n")
            client.until(rb"n OK")  # both have come, and COPY is next
            time.sleep(0.2)
            assert server.process is not None
            server.process.terminate()
            time.sleep(0.05)
            # Somebody asks for a reload meanwhile: that is no reason to end without waiting.
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            assert server.process.poll() is None, "it did not wait for the command"
            lock.unlink()
        finally:
            holder.terminate()
            holder.wait()
        said = client.until(rb"b ")
        assert said[-1].startswith(b"b OK"), said
        assert client.rest().startswith(b"* BYE")
    assert server.stop() == 0
    no_bug(server.log)


def test_a_command_that_waits_for_long_is_given_up(tmp_path: Path) -> None:
    """The same lock, which nobody gives up: two seconds are promised, whatever runs."""
    server = Server(tmp_path).start()
    user, _password = server.user_of("example.test")
    with logged_in(server, "imaps") as client, subprocess.Popen(["sleep", "60"]) as holder:
        client.send(b"a SELECT INBOX\r\n")
        client.until(rb"a OK")
        lock = server.maildir(user) / "dovecot-uidlist.lock"
        lock.write_text(f"{holder.pid}:{socket.gethostname()}")
        client.send(b"n NOOP\r\nb COPY 1 INBOX\r\n")
        client.until(rb"n OK")
        time.sleep(0.2)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < HANG
        holder.kill()
        assert b"b NO [UNAVAILABLE] given up" in client.rest()
    no_bug(server.log)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_search_of_a_thousand_texts_does_not_hold_it_up(tmp_path: Path, workers: int) -> None:
    server = Server(tmp_path, workers=workers)
    user, _password = server.user_of("example.test")
    new = server.maildir(user) / "new"
    (new / "1700000000.M1P1.host").write_bytes(b"Subject: large\r\n\r\n" + b"absent absent absent absent\r\n" * 500_000)
    with server, logged_in(server, "imaps") as client:
        client.send(b"a SELECT INBOX\r\n")
        client.until(rb"a OK")
        client.send(b"b SEARCH " + b" ".join(b"TEXT absent%d" % number for number in range(990)) + b"\r\n")
        client.until(rb"\* OK \[INPROGRESS")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < HANG
        assert b"b OK" not in client.rest()
    no_bug(server.log)


def test_clients_that_do_not_close_hear_it_when_they_wake_up(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    clients = [logged_in(server, "imaps") for _ in range(3)]
    assert server.stop() == 0
    clients[0].send(b"a NOOP\r\n")
    for client in clients:
        with client:
            assert client.rest().startswith(b"* BYE")
    no_bug(server.log)


@pytest.mark.slow
def test_a_client_that_pipelines_without_end_does_not_hold_it_up(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    with logged_in(server, "imaps", read_buffer=4096) as client:
        client.send(b"a SELECT INBOX\r\n")
        client.until(rb"a OK")
        client.send(b"b FETCH 1:* BODY.PEEK[]\r\n" * 2000)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 25
    no_bug(server.log)


def test_what_was_acknowledged_before_is_there_after(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    with Client(server, "lmtp") as client:
        client.greeting()
        client.hello()
        accepted = 0
        for number in range(50):
            client.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<ben@example.test>\r\nDATA\r\n")
            if not all(client.line().startswith(code) for code in (b"250", b"250", b"354")):
                break
            if number == 10:
                assert server.process is not None
                server.process.terminate()
            client.send(b"Subject: kept\r\n\r\nkept\r\n.\r\n")
            if not client.line().startswith(b"250"):
                break
            accepted += 1
    assert server.stop() == 0
    assert accepted >= 10
    found = [
        path for path in (server.maildir("ben@example.test") / "new").iterdir() if b"Subject: kept" in path.read_bytes()
    ]
    assert len(found) == accepted


@pytest.mark.slow
def test_it_starts_again_at_once(tmp_path: Path) -> None:
    """Neither the ports nor the control socket, nor a Unix socket, of one that was killed are in the way."""
    server = Server(tmp_path, append='\n[[listener]]\nprotocol = "lmtp"\nsocket = "{dir}/lmtp"\n').start()
    with logged_in(server, "imaps"):
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with server, logged_in(server, "imaps"):
        server.run_cli("reload", "--config", str(server.config))
        second = server.run(*server.command())
        assert second.returncode != 0
        assert "cannot listen on" in second.stderr + second.stdout
        assert "`ss -tanp` says who " in second.stderr + second.stdout
        assert server.run_cli("reload", "--config", str(server.config)).returncode == 0, "the other took its socket"
    assert not (server.dir / "lmtp").exists()


@pytest.mark.slow
def test_as_a_daemon_with_a_pid_file(tmp_path: Path) -> None:
    server = Server(tmp_path)
    pid_file = tmp_path / "twistd.pid"
    done = server.run(*server.command(f"--pidfile={pid_file}", f"--logfile={server.log_path}"))
    assert done.returncode == 0, done.stderr
    eventually(lambda: "ready: " in server.log)
    pid = int(pid_file.read_text())
    try:
        with logged_in(server, "imaps") as client:
            client.send(b"a SELECT INBOX\r\n")
            client.until(rb"a OK")
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: "] reloaded" in server.log)
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert not pid_file.exists()
    assert "Server Shut Down" in server.log
    no_bug(server.log)


@pytest.mark.slow
def test_a_daemon_that_cannot_start_says_so(tmp_path: Path) -> None:
    server = Server(tmp_path, append='[[listener]]\nprotocol = "lmtp"\nsocket = "{dir}/lmtp.socket"\n')
    with socket.create_server(("127.0.0.1", server.port("imaps"))):
        done = server.run(*server.command(f"--pidfile={tmp_path}/pid", f"--logfile={server.log_path}"))
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{server.port('imaps')}" in done.stderr + done.stdout
    assert not (tmp_path / "lmtp.socket").exists(), "nobody listens there"
    # twistd tells whoever waits for it, and then removes the file.
    eventually(lambda: not (tmp_path / "pid").exists())
