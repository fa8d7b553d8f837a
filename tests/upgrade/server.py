"""A server with the code of any checkout, and a client of lines."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from tests.upgrade.inside import CONFIG, USER

PASSWORD: Final = "correct horse"
PROTOCOLS: Final = ("imap", "imaps", "pop3", "submission", "lmtp")
TEMPLATE: Final = "mailserver.toml.in"
"""The configuration with @DIR@, @USER@ and a port's @NAME@ in it."""
INDEXED: Final = ("INBOX", "Archive/1997", "Adopted")
"""Mailboxes whose text is indexed."""
SEARCHED: Final = 2000
"""Messages that searches must have read for a mailbox to be indexed."""
HANG: Final = 60.0


class Client:
    """A client of lines."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=HANG)
        if tls:
            self.start_tls()
        self._file = self._socket.makefile("rb")
        self.greeting = self._file.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()
        self._socket.close()

    def start_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket = context.wrap_socket(self._socket, server_hostname="mail.example.test")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), f"the server has closed the connection: {line!r}"
        return line[:-2]

    def imap(self, command: str | bytes, *literals: bytes, status: bytes = b"OK") -> list[bytes]:
        """The untagged responses, each with its literals; the last one is the tagged response."""
        text = command.encode() if isinstance(command, str) else command
        pieces = [text]
        for literal in literals:
            pieces[-1] += b"{%d+}\r\n" % len(literal) + literal
        self.send(b"t " + b"".join(pieces) + b"\r\n")
        responses = []
        while True:
            response = self.line()
            while found := re.search(rb"\{(\d+)\}$", response):
                response += b"\n" + self._file.read(int(found[1])) + b"\n" + self.line()
            responses.append(response)
            if response.startswith(b"t "):
                assert response.startswith(b"t " + status), (text, response)
                return responses

    def pop3(self, command: str, *, lines: bool = False) -> list[bytes]:
        self.send(command.encode() + b"\r\n")
        answer = [self.line()]
        assert answer[0].startswith(b"+OK"), (command, answer)
        while lines and (line := self.line()) != b".":
            answer.append(line)
        return answer

    def smtp(self, command: bytes) -> bytes:
        self.send(command + b"\r\n")
        while (line := self.line())[3:4] == b"-":
            pass
        assert line[:1] in b"23", (command, line)
        return line


class Server:
    """A server on the files of a directory, with the code of a checkout."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self.checkout, self.dir = checkout.resolve(), directory.resolve()
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self.dir / "server.log"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.checkout), "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1"}

    def write_config(self) -> None:
        """Fill the template in, with free ports."""
        with contextlib.ExitStack() as opened:
            for protocol in PROTOCOLS:
                probe = opened.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                self.ports[protocol] = probe.getsockname()[1]
        text = (self.dir / TEMPLATE).read_text()
        text = text.replace("@DIR@", str(self.dir)).replace("@USER@", pwd.getpwuid(os.getuid()).pw_name)
        for protocol, port in self.ports.items():
            text = text.replace(f"@{protocol.upper()}@", str(port))
        (self.dir / CONFIG).write_text(text)

    def command(self, *arguments: str, text: str = "") -> str:
        """The administrator's command; what it prints."""
        return self.run("-m", "mailserver.cli", *arguments, "--config", str(self.dir / CONFIG), text=text)

    def run(self, *arguments: str, text: str = "") -> str:
        """Python with the checkout's modules."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.dir, env=self.environment, capture_output=True, text=True, input=text, check=False, timeout=2 * HANG,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def inside(self, action: str) -> str:
        """Call a function of `inside` with the checkout's modules."""
        return self.run(str(Path(__file__).with_name("inside.py").resolve()), action, str(self.dir))

    def __enter__(self) -> Self:
        self._log.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            twistd = str(Path(sys.executable).parent / "twistd")
            self._process = subprocess.Popen(
                [twistd, "-n", "--pidfile=", "mailserver", "--config", str(self.dir / CONFIG)],
                cwd=self.dir, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(lambda: f"ready: {len(PROTOCOLS)} listeners" in self.log or self._ended(), "the server is not ready")
        assert not self._ended(), self.log
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(HANG)
        finally:
            self._process.kill()
            self._process.wait()

    def _ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def complaints(self) -> list[str]:
        """Lines of the log that warn of something, without their time."""
        found = re.findall(
            r"^(?:\S+) \[[^\]]*#(?:warn|error|critical)[^\]]*\] .*$|^Traceback.*$", self.log, re.MULTILINE
        )
        return [line.partition("] ")[2] for line in found]

    @contextlib.contextmanager
    def imap(self, user: str = USER, mailbox: str = "") -> Iterator[Client]:
        with Client(self.ports["imaps"], tls=True) as client:
            client.imap(f'LOGIN {user} "{PASSWORD}"')
            if mailbox:
                client.imap(f'SELECT "{mailbox}"')
            yield client
            client.imap("LOGOUT")

    def deliver(self, *recipients: str, data: bytes) -> None:
        """By LMTP."""
        with Client(self.ports["lmtp"]) as client:
            for command in (b"LHLO host.example.org", b"MAIL FROM:<joerg@example.org>"):
                client.smtp(command)
            for recipient in recipients:
                client.smtp(b"RCPT TO:<%s>" % recipient.encode())
            client.smtp(b"DATA")
            client.send(data + b".\r\n")
            for _recipient in recipients:
                assert client.line().startswith(b"250")
            client.smtp(b"QUIT")

    def index_text(self) -> None:
        """Search the text of some mailboxes until an index is worth it, and keep the session until they are indexed."""
        with self.imap() as client:
            for name in INDEXED:
                [exists] = [line for line in client.imap(f"SELECT {name}") if line.endswith(b" EXISTS")]
                for _ in range(SEARCHED // int(exists.split()[1]) + 1):
                    client.imap("SEARCH TEXT herring")
            wait_until(
                lambda: all(messages == indexed for messages, indexed in self.indexed().values()),
                "the text index is not made",
            )

    def indexed(self) -> dict[str, list[int | None]]:
        """Of those mailboxes: how many messages there are, and how many are indexed."""
        report = json.loads(self.command("index", "show", USER, "--json"))
        return {
            each["name"]: [each["messages"], each["indexed"]] for each in report["mailboxes"] if each["name"] in INDEXED
        }


def wait_until(condition: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.05)
