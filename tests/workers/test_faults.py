"""Processes that stand still, workers that cannot start or grow too large, transfers at the end, and what is in the way."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import LogEvent, globalLogPublisher

from mailserver.net.log.events import log_exceptions
from mailserver.net.workers.supervisor import SILENCE
from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.server import ROOT, Server
from tests.workers.processes import (
    Load,
    alive,
    descriptors,
    family,
    held,
    held_in_each,
    kill,
    master,
    workers,
    works,
    zygote,
)

BODY = b"x" * 76 + b"\r\n"


def test_who_stands_still_when_the_master_dies_ends_too(server: Server) -> None:
    processes = family(server)
    for pid in (workers(server)[0], zygote(server)):
        kill(pid, signal.SIGSTOP)
    kill(master(server))
    eventually(lambda: not any(map(alive, processes)))
    assert server.stop() == -signal.SIGKILL
    server.start()
    held(server)


@pytest.mark.slow
def test_while_the_master_stands_still_all_are_served_and_nobody_is_killed_for_it(server: Server) -> None:
    sessions = held_in_each(server, 2)
    with Load(server, pause=0.2) as load:
        kill(master(server), signal.SIGSTOP)
        end = time.monotonic() + 12  # longer than a silence that is the end
        while time.monotonic() < end:
            load.more()
        kill(master(server), signal.SIGCONT)
        load.more(60)
        time.sleep(2)
    assert not load.faults
    assert set(workers(server)) == set(sessions)
    assert all(works(client) for client in sessions.values())
    assert "no sign of life" not in server.log


def test_supervision_goes_on_after_a_fault_of_its_own() -> None:
    runs, told = [], []

    def work() -> None:
        runs.append(1)
        raise ZeroDivisionError

    def hear(event: LogEvent) -> None:
        told.append(event.get("log_failure"))

    clock = Clock()
    call = LoopingCall(log_exceptions, work)
    call.clock = clock
    globalLogPublisher.addObserver(hear)  # type: ignore[arg-type]
    try:
        call.start(1.0, now=False)
        for _ in range(3):
            clock.advance(1)
    finally:
        globalLogPublisher.removeObserver(hear)  # type: ignore[arg-type]
        call.stop()
    assert len(runs) == 3
    assert sum(failure is not None and failure.check(ZeroDivisionError) is not None for failure in told) == 3


@pytest.mark.slow
def test_workers_without_a_descriptor_left_live_on(server: Server) -> None:
    sessions = held_in_each(server, 2)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in sessions}
    for pid in sessions:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid), before[pid][1]))
    time.sleep(SILENCE + 3)
    assert set(workers(server)) == set(sessions)
    for pid, limit in before.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    assert all(works(client) for client in sessions.values())
    assert "no sign of life" not in server.log


def test_a_worker_that_has_grown_is_replaced_and_its_sessions_go_on(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2, append="\n[limits]\nworker_memory = 8388608\n") as server:
        told = r"worker {} \(process (\d+)\) has \d+ MiB of memory: replaced"
        first, second = (int(server.wait_for(told.format(shard))[1]) for shard in (0, 1))
        eventually(lambda: not {first, second} & set(workers(server)) and len(workers(server)) == 2)
        time.sleep(3)
        # Every worker is larger than that: the limit must not churn.
        assert len(re.findall(told.format(r"\d"), server.log)) == 2
        no_bug(server.log)


def back_end(server: Server, source: str) -> None:
    """Put a back end called `odd` before those that are there."""
    python = server.dir / "python"
    plugins = python / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "odd_plugin.py").write_text(
        "from mailserver.auth.plugins import AuthBackendMaker\n"
        'odd = AuthBackendMaker("odd", "odd", "a back end of a test")\n'
    )
    (python / "odd.py").write_text(source)
    server.extra = {"PYTHONPATH": f"{ROOT}:{python}"}
    server.replace("backends = [", 'backends = ["odd:", ')


LEAK = """
from zope.interface import implementer
from mailserver.auth.interfaces import IAuthBackend, User

@implementer(IAuthBackend)
class Leak:
    kept = []

    def find_user(self, name):
        return User(name) if name == "leak@example.test" else None

    def verify_password(self, user, password):
        self.kept.append(b"x" * (8 << 20))
        return True

def make_backend(argument, hasher):
    return Leak()
"""


def test_a_worker_that_leaks_is_replaced_and_its_sessions_go_on(tmp_path: Path) -> None:
    limit = 128 << 20
    server = Server(tmp_path, workers=2)
    back_end(server, LEAK)
    told = re.compile(r"worker \d \(process (\d+)\) has (\d+) MiB of memory: replaced")
    with server:
        sessions = held_in_each(server, 2)
        server.config.write_text(f"{server.config.read_text()}\n[limits]\nworker_memory = {limit}\n")
        server.hang_up()
        for _ in range(100):
            with Client(server, "imaps") as client:
                client.greeting()
                client.log_in("leak@example.test", "any")
            time.sleep(0.2)
            if found := told.search(server.log):
                break
        assert found is not None
        victim = int(found[1])
        assert int(found[2]) << 20 >= limit  # the line has whole MiB, rounded down
        # The other one may have followed by now: the connections were spread over both.
        eventually(lambda: victim in sessions and len(set(workers(server)) - set(sessions)) >= 1)
        with Load(server) as load:
            load.more()
        assert not load.faults
        assert all(works(client) for client in sessions.values())
        assert alive(victim)
        for client in sessions.values():
            client.socket.close()
        eventually(lambda: not alive(victim))
    no_bug(server.log)


BROKEN = """
import os
from zope.interface import implementer
from mailserver.auth.interfaces import IAuthBackend

@implementer(IAuthBackend)
class Fragile:
    def find_user(self, name):
        return None

    def verify_password(self, user, password):
        return False

def make_backend(argument, hasher):
    if os.path.exists("BROKEN"):
        raise ValueError("the database is broken")
    return Fragile()
"""


def test_a_worker_that_cannot_start_says_why_and_the_others_serve(tmp_path: Path) -> None:
    """A back end breaks while the server runs."""
    server = Server(tmp_path, workers=2)
    broken = tmp_path / "broken"
    back_end(server, BROKEN.replace("BROKEN", str(broken)))
    with server:
        sessions = held_in_each(server, 2)
        victim, other = sessions
        broken.touch()
        since = len(server.log)
        kill(victim)
        server.wait_for(r"worker \d cannot start: .*the database is broken", since=since)
        began = time.monotonic()
        eventually(lambda: server.log[since:].count(" cannot start: ") >= 5, 60)
        assert time.monotonic() - began > 2, "it waits longer each time: 0.25, 0.5, 1, 2 s"
        assert works(sessions[other])
        broken.unlink()
        eventually(lambda: len(workers(server)) == 2)
        with Load(server) as load:
            load.more()
        assert not load.faults
        assert works(sessions[other])
    no_bug(server.log)


def test_stale_sockets_are_in_nobodys_way(tmp_path: Path) -> None:
    append = '\n[[listener]]\nprotocol = "lmtp"\nsocket = "{dir}/lmtp.socket"\n'
    server = Server(tmp_path, workers=2, append=append).start()
    processes = [master(server), *family(server)]
    for pid in processes:
        kill(pid)
    assert server.stop() == -signal.SIGKILL
    eventually(lambda: not any(map(alive, processes)))
    assert (tmp_path / "lmtp.socket").is_socket()
    assert (tmp_path / "run" / "control").is_socket()
    with server:
        assert server.run_cli("who", "--config", str(server.config)).returncode == 0
        held(server)
    assert not (tmp_path / "lmtp.socket").exists()
    no_bug(server.log)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_run_directory_is_told_and_mail_is_served(tmp_path: Path) -> None:
    """No room for the control socket: neither octets nor inodes."""
    server = Server(tmp_path, workers=2)
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    # Sockets of listeners are elsewhere: without these the server would not start.
    server.config.write_text(re.sub(r"/run/(auth|lookup)\b", r"/\1", server.config.read_text()))
    # In a mount namespace of its own: whoever dies takes it along.
    script = (
        f'mount -t tmpfs -o size=4k,nr_inodes=2,mode=777 tmpfs "{run}" && head -c 4096 /dev/zero >"{run}/hog";'
        ' exec "$@"'
    )
    server.wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    with server:
        assert re.search(r"no control socket at \S+: .*No space left on device", server.log)
        held(server)
        server.hang_up()
        refused = server.run_cli("who", "--config", str(server.config), check=False)
        assert refused.returncode == 1
    no_bug(server.log)


def test_the_end_with_open_transfers_keeps_what_was_acknowledged_and_nothing_else(server: Server) -> None:
    user, _password = server.user_of("example.test")
    inbox = server.maildir(user)
    sender, uploader, reader = (logged_in(server, name) for name in ("submissions", "imaps", "imaps"))
    text = b"Subject: whole\r\n\r\n" + BODY * 50_000
    uploader.send(b"a APPEND INBOX {%d}\r\n" % len(text))
    uploader.until(rb"\+")
    uploader.send(text + b"\r\n")
    assert uploader.until(rb"a ")[-1].startswith(b"a OK")
    reader.send(b"s SELECT INBOX\r\n")
    reader.until(rb"s OK")
    reader.send(b"f FETCH * BODY.PEEK[]\r\n")
    reader.line()
    uploader.send(b"b APPEND INBOX {%d}\r\n" % len(text))
    uploader.until(rb"\+")
    uploader.send(b"Subject: half\r\n\r\n" + BODY * 1000)
    sender.send(f"MAIL FROM:<{user}>\r\nRCPT TO:<{user}>\r\nDATA\r\n".encode())
    sender.until(rb"354")
    sender.send(b"Subject: half\r\n\r\n" + BODY * 1000)
    processes = family(server)
    ended = threading.Thread(target=server.stop)
    ended.start()
    said = bytearray(reader.buffer)
    while data := reader.socket.recv(1 << 20):
        said += data
    assert text in said, "the transfer that could go on was finished"
    assert uploader.rest().startswith(b"* BYE")
    assert sender.rest().startswith(b"421 ")
    ended.join(40)
    assert not any(map(alive, processes))
    files = [path for folder in ("new", "cur") for path in (inbox / folder).iterdir()]
    subjects = [path.read_bytes().partition(b"\n")[0].strip() for path in files]
    assert b"Subject: whole" in subjects
    assert b"Subject: half" not in subjects
    assert not list((inbox / "tmp").iterdir())
    server.start()


def test_a_worker_that_begins_while_the_mail_is_unmounted_makes_no_accounts(server: Server) -> None:
    """They would be in nobody's sight once it is mounted again, and their mail with them."""
    user, word = server.user_of("example.test")
    root, aside = server.dir / "mail", server.dir / "aside"
    root.rename(aside)
    root.mkdir()
    before = workers(server)
    for pid in before:
        kill(pid)
    eventually(lambda: len(workers(server)) == 2 and not set(before) & set(workers(server)))
    large = b"Subject: large\r\n\r\n" + BODY * 20_000  # it waits in a file
    for text in (large, b"Subject: small\r\n\r\n"):
        with Client(server, "lmtp") as client:
            client.greeting()
            client.hello()
            client.send(f"MAIL FROM:<>\r\nRCPT TO:<{user}>\r\nDATA\r\n".encode())
            client.until(rb"354")
            client.send(text + b".\r\n")
            assert client.line().startswith(b"4")
    with Client(server, "imaps") as client:
        client.greeting()
        assert client.try_login(user, word).startswith(b"a NO [UNAVAILABLE]")
    assert not [path for path in root.iterdir() if not path.name.startswith("mailserver-")]
    root.rename(server.dir / "mount point")
    aside.rename(root)
    held(server)


def test_nobody_reads_the_output_and_all_go_on(tmp_path: Path) -> None:
    """`twistd -n` at a pipe that is full."""
    server = Server(tmp_path, workers=2)
    with server:
        user, word = server.user_of("example.test")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while os.write(writing, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writing, True)
    process = subprocess.Popen(
        server.command(), cwd=server.dir, env=server.environment(), stdout=writing, stderr=writing
    )
    os.close(writing)
    try:
        control = tmp_path / "run" / "control"
        eventually(control.is_socket, 60)
        for _ in range(20):
            client = Client(server, "imaps")
            client.greeting()
            client.log_in(user, word)
            client.socket.close()
        answer = server.run_cli("status", "--json", "--config", str(server.config))
        assert len(json.loads(answer.stdout)["workers"]) == 2
        os.read(reading, 1 << 20)
        time.sleep(0.1)
        process.terminate()
        assert process.wait(30) == 0
        os.set_blocking(reading, False)
        assert b"lines of the log found no room" in os.read(reading, 1 << 20)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
