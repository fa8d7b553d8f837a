"""The floor of Python: what single steps cost that a server cannot do without, on the messages of the benchmark.

python -m benchmarks.floors

Each line is the least processor time of five repetitions, user and system, divided by the number of messages.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import corpus
from benchmarks.mail import DISTINCT, to_wire

FEW = 100
"""Messages of steps that wait for the disk."""
_SUBJECT = re.compile(rb"(?mi)^subject[ \t]*:(.*(?:\n[ \t].*)*)")
_FIELD = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:(.*(?:\n[ \t].*)*)")


def measure(name: str, work: Callable[[], object], count: int = DISTINCT) -> None:
    """Print the microseconds that one step of `work` takes."""
    found = []
    for _ in range(5):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    print(f"{name}: {min(found) / count * 1e6:.1f} us")


def of_files(directory: Path, messages: list[bytes]) -> None:
    """Measure steps on files."""
    paths = [str(directory / str(number)) for number in range(len(messages))]
    files = [(path, len(message)) for path, message in zip(paths, messages, strict=True)]
    for path, message in zip(paths, messages, strict=True):
        Path(path).write_bytes(message)

    def read() -> None:
        for path, size in files:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, size + 1)
            os.close(descriptor)

    def read_head() -> None:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.pread(descriptor, 8192, 0)
            os.close(descriptor)

    def rename() -> None:
        for path in paths:
            os.rename(path, path + ":2,S")
            os.rename(path + ":2,S", path)

    def link() -> None:
        for path in paths:
            os.link(path, path + ".link")
            os.unlink(path + ".link")

    def create() -> None:
        for path in paths[:FEW]:
            descriptor = os.open(path + ".new", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, messages[0])
            os.fsync(descriptor)
            os.close(descriptor)
            os.unlink(path + ".new")

    measure("open, read all, close", read)
    measure("open, read 8 KiB, close", read_head)
    measure("stat", lambda: [os.stat(path) for path in paths])
    measure("list a directory, a name", lambda: os.listdir(directory))
    measure("rename", rename, 2 * len(paths))
    measure("link and unlink", link)
    measure("create, write, fsync, close, unlink", create, FEW)


def of_octets(messages: list[bytes]) -> None:
    """Measure steps on octets in memory."""
    heads = [message.partition(b"\n\n")[0] for message in messages]
    measure("LF to CRLF", lambda: [message.replace(b"\n", b"\r\n") for message in messages])
    measure("find the Subject", lambda: [_SUBJECT.search(head) for head in heads])
    measure("find all fields", lambda: [_FIELD.findall(head) for head in heads])


def of_sockets(messages: list[bytes]) -> None:
    """Measure `send` to a process that receives; its part is not counted."""
    wire = [to_wire(message) for message in messages]
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        child = os.fork()
        if child == 0:
            while server.recv(1 << 18):
                pass
            os._exit(0)
        server.close()
        measure("send to loopback", lambda: [client.sendall(each) for each in wire])
        client.shutdown(socket.SHUT_WR)
        os.waitpid(child, 0)


def of_threads() -> None:
    """Measure the way to a thread and back by a pipe, as from the reactor to the store."""
    jobs: queue.SimpleQueue[bool] = queue.SimpleQueue()
    reader, writer = os.pipe()

    def serve() -> None:
        while jobs.get():
            os.write(writer, b"x")

    def hop() -> None:
        for _ in range(DISTINCT):
            jobs.put(True)
            os.read(reader, 1)

    thread = threading.Thread(target=serve)
    thread.start()
    measure("to a thread and back", hop)
    jobs.put(False)
    thread.join()


def main() -> None:
    """Print all."""
    messages = [corpus.message(seed) for seed in range(DISTINCT)]
    with tempfile.TemporaryDirectory(prefix="mailserver-floors-") as name:
        of_files(Path(name), messages)
    of_octets(messages)
    of_sockets(messages)
    of_threads()


if __name__ == "__main__":
    main()
