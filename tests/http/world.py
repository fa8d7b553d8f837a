"""An HTTP session without a reactor, and what it answers in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from mailserver.config.load import parse
from mailserver.config.model import Config
from mailserver.http.services import HttpServices, PublishedAuthority
from mailserver.http.session import HttpSession
from tests.fakes import Client, info

FILE = b"""
[server]
hostname = "mail.example.test"
user = "root"
[mail]
root = "/var/mail/domains"
[auth]
backends = ["file:/etc/mailserver/users"]
[[domain]]
name = "example.test"
hosts = ["mail.example.test", "*.example.net"]
certificate = "a.pem"
key = "a.key"
[[listener]]
protocol = "https"
port = 8443
"""

STATUS: dict[str, Any] = {
    "listeners": [],
    "certificates": [],
    "workers": [],
    "event_counters": [],
    "restarts": 0,
    "exposures": 2,
    "bans": 4,
    "acme": [],
}


def config_of(octets: bytes = FILE) -> Config:
    """Of a file's content; it must be sound, but for warnings."""
    reading = parse(octets, Path("/etc/mailserver/mailserver.toml"))
    assert reading.config is not None
    assert all(problem.warning for problem in reading.problems), [str(problem) for problem in reading.problems]
    return reading.config


@frozen
class Answered:
    """One answer."""

    status: int
    fields: dict[str, str]
    body: bytes


class World:
    """One connection."""

    def __init__(
        self,
        *,
        peer: str = "127.0.0.1",
        tls: bool = False,
        config: Config | None = None,
        status: Any = STATUS,
        allow_bugs: bool = False,
        sign: Callable[[str, bytes], bytes] = lambda host, octets: host.encode() + b":" + octets,
        authority: PublishedAuthority | None = None,
    ) -> None:
        """`status`: an exception is raised instead."""
        from ipaddress import ip_address

        async def query_status() -> Any:
            if isinstance(status, Exception):
                raise status
            return status

        made = HttpServices(
            config or config_of(),
            query_status,
            sign,
            lambda: authority,
            lambda host: hashlib.sha256(host.encode()).hexdigest(),
        )
        facts = info("https" if tls else "http", tls=tls, peer=ip_address(peer))
        facts = attrs.evolve(facts, starttls_offered=False)
        self.client = Client(lambda channel: HttpSession(channel, made), facts, allow_bugs=allow_bugs)

    def ask(self, octets: bytes, *, head: bool = False) -> Answered:
        """One request's answer."""
        self.client.send(octets)
        [answered] = self.answers(head=head)
        return answered

    def get(self, path: str, host: str = "mail.example.test", method: str = "GET") -> Answered:
        return self.ask(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"), head=method == "HEAD")

    def answers(self, *, head: bool = False) -> list[Answered]:
        """All that was written since the last call."""
        octets, found = self.client.take(), []
        while octets:
            heading, _blank, octets = octets.partition(b"\r\n\r\n")
            first, *lines = heading.decode("latin-1").split("\r\n")
            fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            assert len(fields) == len(lines), "a field stands there twice"
            status = int(first.split(" ")[1])
            length = 0 if head or status == 100 else int(fields["content-length"])
            found.append(Answered(status, fields, octets[:length]))
            assert len(found[-1].body) == length
            octets = octets[length:]
        return found

    @property
    def over(self) -> bool:
        return self.client.done
