"""`python -m tests.embedding.beside DIRECTORY DIRECTORY`: `MailServices` in a program with a service of its own.

Two have a file each, the third one a configuration made in code. The program prints a line of JSON when they serve and one
when they have stopped, and does both twice. Its orders are lines: `reload`, for the first, or `stop`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailserver.config.kinds import HostName
from mailserver.config.model import Auth, Mail, Server
from mailserver.embedding import Config, IMAPFactory, InvalidConfiguration, Listener, MailServices, POP3Factory
from tests.embedding.program import children

reactor: Any = installed


class Other(ProcessProtocol):
    """A process of another service."""

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value.exitCode)  # type: ignore[union-attr]


class Lines(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self) -> None:
        self.next: Deferred[bytes] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        before, self.next = self.next, Deferred()
        before.callback(line)


def state() -> dict[str, Any]:
    """All of the process that is not the services' own."""
    return {
        "signals": {each.name: repr(signal.getsignal(each)) for each in signal.Signals},
        "gc": [gc.get_threshold(), gc.get_freeze_count()],
        "switch": sys.getswitchinterval(),
        "logging": repr(logging.getLogger("mailserver").handlers),
        "threads": sorted(
            each.name
            for each in threading.enumerate()
            if not each.name.startswith("PoolThread-")  # the reactor's
        ),
        "files": sorted(f"{each.name} {each.readlink()}" for each in Path("/proc/self/fd").iterdir() if each.exists()),
        "children": children(os.getpid()),
    }


def make_config(directory: Path) -> Config:
    """One without domains, so without TLS."""
    return Config(
        server=Server(hostname=HostName("mail.example.test"), state_dir=directory / "state of a third"),
        mail=Mail(root=directory / "mail of a third"),
        auth=Auth(backends=(f"file:{directory / 'users'}",)),
        domains=(),
        listeners=(),
    )


@inlineCallbacks
def obey(lines: Lines, services: MailServices) -> Any:
    """Reload when asked, until the order to stop."""
    while (yield lines.next) == b"reload":
        try:
            done = yield services.reload()
        except InvalidConfiguration as error:
            say(refused=str(error))
        else:
            say(done=done)


def say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


@inlineCallbacks
def run(directories: list[str]) -> Any:
    lines = Lines()
    StandardIO(lines)
    services = [MailServices.from_file(Path(directory) / "mail.toml") for directory in directories]
    services.append(MailServices(make_config(Path(directories[0]))))
    cleartext = Listener("imap", allow_cleartext=True)
    factories = [IMAPFactory(services[0]), POP3Factory(services[1]), IMAPFactory(services[2], listener=cleartext)]
    first = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Factory())
    yield first.stopListening()  # with its first port Twisted reserves a descriptor
    before = state()
    for turn in range(2):
        ports = []
        for factory in factories:
            port = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
            ports.append(port)
        for service in services:
            service.startService()
        other = Other()
        # While our own processes come and go.
        reactor.spawnProcess(other, "/bin/sh", ["sh", "-c", f"sleep 0.2; exit {7 + turn}"])
        status = yield other.ended
        within = state()
        say(ports=[port.getHost().port for port in ports], other=status, within=within)
        yield obey(lines, services[0])
        for port in ports:
            yield port.stopListening()
        for service in services:
            yield service.stopService()
        say(before=before, after=state())
    reactor.stop()


if __name__ == "__main__":
    reactor.callWhenRunning(
        lambda: run(sys.argv[1:]).addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
    )
    reactor.run()
