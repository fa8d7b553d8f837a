"""Responses to ACME challenges, published where the authority looks and removed afterwards.

An http-01 response is a file that another web server serves (RFC 8555 8.3). A dns-01 response is a TXT record (RFC 8555
8.4), set by dynamic update (RFC 2136, signed by RFC 8945) or by the administrator's own program. Where our own listener
answers, nothing is published.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.tsig
import dns.update
from attrs import define, frozen

from mailserver.tls.acme.dns_alias import AliasNotResolved, target

HOOK_TIME: Final = 60.0
"""Maximum run time of the administrator's program, in seconds."""
HUNG_HOOK_TIME: Final = 10.0
"""The same for removing a record after the program has hung while adding it."""
DNS_TIME: Final = 15.0
"""Timeout of a query to the name server, in seconds."""
TTL: Final = 60
"""TTL of the record, in seconds."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")


class ChallengeFailed(Exception):
    """The challenge response cannot be published; the text says why."""


class Proof(Protocol):
    """The response to the challenge of one name."""

    def put(self) -> None:
        """Publish it, and return once it is visible. Raises: ChallengeFailed."""

    def remove(self) -> None:
        """Remove it, also if it was published only in part. Raises nothing."""


def make_proof(job: Mapping[str, Any], host: str, token: str, validation: str) -> Proof:
    """Make the response for a host (without `*.`).

    `validation` is the content of the file or of the record. Raises: ChallengeFailed.
    """
    if job["challenge"] == "http-01":
        if not _TOKEN.fullmatch(token):
            raise ChallengeFailed("the authority sent an invalid token (RFC 8555 8.3)")
        return Page(Path(job["webroot"]), token, validation) if job["webroot"] else Nothing()
    of_dns = job["dns"]
    try:
        record = target(f"_acme-challenge.{host}", of_dns["resolver"], of_dns["resolver_port"])
    except AliasNotResolved as error:
        raise ChallengeFailed(str(error)) from error
    if of_dns["hook"]:
        return ByHook(tuple(of_dns["hook"]), record, validation, of_dns["wait"])
    return ByUpdate(of_dns, record, validation)


class Nothing:
    """A response that our own listener serves."""

    def put(self) -> None:
        """Do nothing."""

    def remove(self) -> None:
        """Do nothing."""


@frozen
class Page:
    """A file below a web root."""

    root: Path
    token: str
    content: str

    def put(self) -> None:
        """Write the file, and make its directories if they are missing. Raises: ChallengeFailed."""
        try:
            for directory in (self._path.parent.parent, self._path.parent):
                if not directory.exists():
                    directory.mkdir()
                    directory.chmod(0o755)  # the web server runs as another user, whatever our umask
            # Other users may write there: their symbolic link must not lead us to a file that only we may change.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self._path, flags, 0o600), "w", encoding="ascii") as file:
                file.write(self.content)
                os.fchmod(file.fileno(), 0o644)
        except OSError as error:
            raise ChallengeFailed(f"{self._path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the file; its directories stay."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.root / ".well-known" / "acme-challenge" / self.token


@define
class ByHook:
    """A TXT record that the administrator's program sets."""

    program: tuple[str, ...]
    record: str
    content: str
    wait: float
    hangs: bool = False
    """Did the program hang when it added the record?"""

    def put(self) -> None:
        """Run the program. Raises: ChallengeFailed if it fails or takes too long."""
        try:
            done = self._run("add")
        except OSError as error:
            raise ChallengeFailed(f"{self.program[0]} cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            self.hangs = True
            raise ChallengeFailed(f"{self.program[0]} was killed after {HOOK_TIME:g} seconds") from None
        if done != 0:
            raise ChallengeFailed(f"{self.program[0]} failed with status {done}")
        time.sleep(self.wait)

    def remove(self) -> None:
        """Run the program; ignore its status."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._run("remove")

    def _run(self, what: str) -> int:
        command = [*self.program, what, self.record, self.content]
        # Programs print requests and answers on standard output, which may be secret; errors go to standard error.
        quiet = subprocess.DEVNULL
        seconds = HUNG_HOOK_TIME if self.hangs else HOOK_TIME
        return subprocess.run(command, stdin=quiet, stdout=quiet, timeout=seconds, check=False).returncode


class ByUpdate:
    """A TXT record that a dynamic update sets."""

    def __init__(self, settings: Mapping[str, Any], record: str, content: str) -> None:
        """Raises: ChallengeFailed if the library rejects the settings."""
        self._server: str = settings["server"]
        self._port: int = settings["port"]
        self._wait: float = settings["wait"]
        self._record = dns.name.from_text(record)
        self._content = f'"{content}"'
        self._key: dns.tsig.Key | None = None
        try:
            if settings["key_name"]:
                secret = base64.b64decode(settings["key"], validate=True)
                self._key = dns.tsig.Key(settings["key_name"], secret, settings["key_algorithm"])
            self._zone = dns.name.from_text(settings["zone"]) if settings["zone"] else None
        except (dns.exception.DNSException, ValueError) as error:
            raise ChallengeFailed(f"[acme.dns] key or zone: {error}") from error
        if self._zone is not None and not self._record.is_subdomain(self._zone):
            raise ChallengeFailed(f"{self._record} is not in the zone of [acme.dns], {self._zone}")

    def put(self) -> None:
        """Send the update. Raises: ChallengeFailed."""
        try:
            answer = self._send("add")
        except (OSError, EOFError, dns.exception.DNSException) as error:
            words = str(error) or type(error).__name__
            raise ChallengeFailed(f"name server {self._server} cannot be updated: {words}") from error
        if answer.rcode() != dns.rcode.NOERROR:
            words = dns.rcode.to_text(answer.rcode())
            raise ChallengeFailed(f"name server {self._server} refuses the update of {self._record}: {words}")
        time.sleep(self._wait)

    def remove(self) -> None:
        """Remove this record alone: another of the same name may belong to another order."""
        with contextlib.suppress(OSError, EOFError, dns.exception.DNSException):
            self._send("remove")

    def _send(self, what: str) -> dns.message.Message:
        if self._zone is None:
            self._zone = self._find_zone()
        update = dns.update.UpdateMessage(self._zone)
        if self._key is not None:
            update.use_tsig(self._key)
        if what == "add":
            update.add(self._record, TTL, "TXT", self._content)
        else:
            update.delete(self._record, "TXT", self._content)
        return dns.query.tcp(update, self._server, timeout=DNS_TIME, port=self._port)

    def _find_zone(self) -> dns.name.Name:
        """Find the closest parent name with an SOA record on the server. Raises: OSError, DNSException."""
        name = self._record
        while len(name) > 1:
            name = name.parent()
            query = dns.message.make_query(name, dns.rdatatype.SOA)
            answer = dns.query.tcp(query, self._server, timeout=DNS_TIME, port=self._port)
            if any(found.rdtype == dns.rdatatype.SOA and found.name == name for found in answer.answer):
                return name
        raise dns.exception.DNSException(f"the server has no zone for {self._record}")
