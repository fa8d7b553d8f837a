"""The processes of a running server, and clients that load it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Self

from tests.live.client import Client, eventually, logged_in
from tests.server import Server


def parent(pid: int) -> int:
    return int(_status(pid, "PPid"))


def _status(pid: int, key: str) -> str:
    found = re.search(rf"^{key}:\s*(\S+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def children(pid: int, words: str = "") -> list[int]:
    """Living children of a process whose command line has these words."""
    found: list[int] | None = None
    # The kernel may leave some out while another ends (proc_pid_task_children(5)).
    while found != (found := _children(pid)):
        pass
    return [child for child in found if alive(child) and words in _command_line(child)]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def of_session(session: int) -> list[int]:
    """Living processes of a session (setsid(2))."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session and alive(pid):
                found.append(pid)
    return found


def zombies(pid: int) -> list[int]:
    """Children of a process that nobody has waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, AssertionError):
            if _status(int(path.name), "State") == "Z" and parent(int(path.name)) == pid:
                found.append(int(path.name))
    return found


def master(server: Server) -> int:
    """twistd, below what wraps it."""
    assert server.process is not None
    return server.process.pid


def zygotes(server: Server) -> list[int]:
    return children(master(server), "mailserver.zygote")


def zygote(server: Server) -> int:
    (found,) = zygotes(server)
    return found


def workers(server: Server) -> list[int]:
    """All workers, those that retire too."""
    return [worker for one in zygotes(server) for worker in children(one, "mailserver.zygote")]


def family(server: Server) -> list[int]:
    """Every process of the server but the master."""
    found = zygotes(server)
    for pid in found:
        found += children(pid)
    return found


def alive(pid: int) -> bool:
    try:
        return _status(pid, "State") != "Z"
    except (OSError, AssertionError):
        return False


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def held(server: Server) -> tuple[Client, int]:
    """A session that has selected its INBOX, and the process number of its worker."""
    before = len(server.log)
    client = logged_in(server, "imaps")
    found = server.wait_for(r"login session=([0-9a-f]+)\.", since=before)
    client.send(b"s SELECT INBOX\r\n")
    client.until(rb"s OK")
    return client, int(found[1], 16)


def held_in_each(server: Server, count: int) -> dict[int, Client]:
    """A session in each of so many workers."""
    found: dict[int, Client] = {}
    for _ in range(60):
        client, pid = held(server)
        if pid in found:
            client.socket.close()
        found.setdefault(pid, client)
        if len(found) == count:
            return found
    raise AssertionError(f"connections reach only {list(found)}")


def works(client: Client) -> bool:
    client.send(b"w NOOP\r\n")
    return client.until(rb"w ")[-1].startswith(b"w OK")


class Load:
    """Threads that connect, shake hands, ask and leave, again and again."""

    def __init__(self, server: Server, threads: int = 4, pause: float = 0.0) -> None:
        """`pause`: seconds between two connections of a thread."""
        self.server = server
        self.done = 0
        self._pause = pause
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Client(self.server, "imaps") as client:
                    client.greeting()
                    client.send(b"c CAPABILITY\r\n")
                    assert client.until(rb"c ")[-1].startswith(b"c OK")
                    client.send(b"q LOGOUT\r\n")
                    assert client.until(rb"q ")[-1].startswith(b"q OK")
                self.done += 1
            except (OSError, AssertionError) as error:
                self.faults.append(repr(error))
            self._stop.wait(self._pause)

    def more(self, count: int = 20, seconds: float = 30) -> None:
        """Wait until as many further connections have gone well."""
        wanted, end = self.done + count, time.monotonic() + seconds
        while self.done < wanted:
            assert time.monotonic() < end, f"nothing goes on: {self.faults[-5:]}"
            time.sleep(0.02)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def replace_all(server: Server) -> None:
    """Kill every worker, until others are in their places: a killed process is there for a moment yet."""
    before = workers(server)
    for pid in before:
        kill(pid)
    eventually(lambda: not set(before) & set(now := workers(server)) and len(now) == len(before), 40)
