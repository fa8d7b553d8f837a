"""Proofs that a name is ours, put where an ACME authority looks, and taken away again.

A page of another web server (RFC 8555 8.3), a TXT record by dynamic update (RFC 2136, signed by RFC 8945) or by the
administrator's own program (RFC 8555 8.4). Where our own listener answers there is nothing to put.
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

from mailserver.tls.acme.dns_alias import CannotFollow, target

HOOK_TIME: Final = 60.0
"""Seconds that the administrator's program may take."""
HUNG_HOOK_TIME: Final = 10.0
"""The same to take away what it has hung in making."""
DNS_TIME: Final = 15.0
"""Seconds for an answer of the name server."""
TTL: Final = 60
"""Of the record, seconds."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")


class CannotProve(Exception):
    """The proof cannot be put there; the text says why."""


class Proof(Protocol):
    """Of one name."""

    def put(self) -> None:
        """Until it can be seen. Raises: CannotProve."""

    def remove(self) -> None:
        """Also where it was put in part only. Raises nothing."""


def make_proof(job: Mapping[str, Any], host: str, token: str, validation: str) -> Proof:
    """For a host without `*.`; `validation` is the page's content, or the record's. Raises: CannotProve."""
    if job["challenge"] == "http-01":
        if not _TOKEN.fullmatch(token):
            raise CannotProve("the authority's token is none (RFC 8555 8.3)")
        return Page(Path(job["webroot"]), token, validation) if job["webroot"] else Nothing()
    of_dns = job["dns"]
    try:
        record = target(f"_acme-challenge.{host}", of_dns["resolver"], of_dns["resolver_port"])
    except CannotFollow as error:
        raise CannotProve(str(error)) from error
    if of_dns["hook"]:
        return ByHook(tuple(of_dns["hook"]), record, validation, of_dns["wait"])
    return ByUpdate(of_dns, record, validation)


class Nothing:
    """Our own listener answers."""

    def put(self) -> None:
        """Nothing."""

    def remove(self) -> None:
        """Nothing."""


@frozen
class Page:
    """A file below a web root."""

    root: Path
    token: str
    content: str

    def put(self) -> None:
        """The directories may have to be made. Raises: CannotProve."""
        try:
            for directory in (self._path.parent.parent, self._path.parent):
                if not directory.exists():
                    directory.mkdir()
                    directory.chmod(0o755)  # the web server is another user, whatever our umask
            # Others may write there: a link of theirs must not lead us to a file that only we may change.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self._path, flags, 0o600), "w", encoding="ascii") as file:
                file.write(self.content)
                os.fchmod(file.fileno(), 0o644)
        except OSError as error:
            raise CannotProve(f"{self._path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """The file alone."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.root / ".well-known" / "acme-challenge" / self.token


@define
class ByHook:
    """A record by the administrator's program."""

    program: tuple[str, ...]
    record: str
    content: str
    wait: float
    hangs: bool = False
    """So it did when the record was made."""

    def put(self) -> None:
        """Raises: CannotProve where it fails or takes too long."""
        try:
            done = self._run("add")
        except OSError as error:
            raise CannotProve(f"{self.program[0]} cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            self.hangs = True
            raise CannotProve(f"{self.program[0]} was ended: it took more than {HOOK_TIME:g} seconds") from None
        if done != 0:
            raise CannotProve(f"{self.program[0]} has failed with status {done}")
        time.sleep(self.wait)

    def remove(self) -> None:
        """What it says then is not needed any more."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._run("remove")

    def _run(self, what: str) -> int:
        command = [*self.program, what, self.record, self.content]
        # Programs show there what they send and get, which may be a secret; what goes wrong they say on the other.
        quiet = subprocess.DEVNULL
        seconds = HUNG_HOOK_TIME if self.hangs else HOOK_TIME
        return subprocess.run(command, stdin=quiet, stdout=quiet, timeout=seconds, check=False).returncode


class ByUpdate:
    """A record by dynamic update."""

    def __init__(self, settings: Mapping[str, Any], record: str, content: str) -> None:
        """Raises: CannotProve for settings that the library does not take."""
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
            raise CannotProve(f"[acme.dns] key or zone: {error}") from error
        if self._zone is not None and not self._record.is_subdomain(self._zone):
            raise CannotProve(f"{self._record} is not in the zone of [acme.dns], {self._zone}")

    def put(self) -> None:
        """Raises: CannotProve."""
        try:
            answer = self._send("add")
        except (OSError, EOFError, dns.exception.DNSException) as error:
            words = str(error) or type(error).__name__
            raise CannotProve(f"name server {self._server} does not take the update: {words}") from error
        if answer.rcode() != dns.rcode.NOERROR:
            words = dns.rcode.to_text(answer.rcode())
            raise CannotProve(f"name server {self._server} refuses the update of {self._record}: {words}")
        time.sleep(self._wait)

    def remove(self) -> None:
        """One record alone: another of the same name may be another order's."""
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
        """The name above the record that the server has an SOA record for. Raises: OSError, DNSException."""
        name = self._record
        while len(name) > 1:
            name = name.parent()
            query = dns.message.make_query(name, dns.rdatatype.SOA)
            answer = dns.query.tcp(query, self._server, timeout=DNS_TIME, port=self._port)
            if any(found.rdtype == dns.rdatatype.SOA and found.name == name for found in answer.answer):
                return name
        raise dns.exception.DNSException(f"it has no zone for {self._record}")
