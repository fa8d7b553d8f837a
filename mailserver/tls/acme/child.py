"""A job at an ACME authority, done by a child process (`client.py`) without the right to read keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mailserver.config.model import Acme, Config
from mailserver.system.as_user import UserProcess, other_user
from mailserver.tls.acme.acme_state import account_key
from mailserver.tls.acme.files import first_line
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.keypair.sanitize import printable
from mailserver.tls.state.history import CannotRecord

PATIENCE: Final = 480.0
"""Timeout of the child process, in seconds."""
LONGEST: Final = 1 << 20
"""Maximum length of its answer, in octets."""


class AcmeError(Exception):
    """The authority did not do the job; the text says why, and is safe to show."""

    def __init__(self, reason: str, retry_after: int = 0, *, decided: bool = False, code: str = "") -> None:
        super().__init__(printable(reason))
        self.code = code
        """The type of the authority's problem (RFC 8555 6.7), or ""."""
        self.retry_after = retry_after
        """Seconds that the authority asks to wait."""
        self.decided = decided
        """Has the authority decided, so that repeating the request is useless?"""


class Child:
    """The child process of one job."""

    def __init__(self, config: Config) -> None:
        """`config` must have an [acme]."""
        assert config.acme is not None
        self._config = config
        self._acme: Acme = config.acme
        self._process: UserProcess | None = None
        self._stopped = False

    def ask(
        self, do: str, job: dict[str, Any], *, seconds: float = PATIENCE, order: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Run a job and return its result; `order` gets the address of an order as soon as there is one.

        Blocks. Raises: AcmeError.
        """

        def each(line: bytes) -> None:
            match _row(line):
                case {"order": str(address)} if order is not None:
                    order(address)

        try:
            octets = json.dumps({"do": do, **self._terms(), **job}).encode()
            child = self._process = UserProcess("mailserver.tls.acme.client", other_user(self._config.server))
            if self._stopped:
                child.stop()
            answer = child.ask(octets, seconds=seconds, longest=LONGEST, each=each)
        except (OSError, KeyError, CannotRecord) as error:
            raise AcmeError(str(error)) from error
        row = _row(answer.rstrip(b"\n").rpartition(b"\n")[2])
        match row:
            case {"error": str(why), "code": str(code), "retry_after": int(retry_after), "decided": bool(decided)}:
                raise AcmeError(why, retry_after, decided=decided, code=code)
            case {"order": _} | None:
                raise AcmeError("the process that connects to the authority was killed; its log may say why")
        return row

    def stop(self) -> None:
        """Stop the process, from another thread."""
        self._stopped = True
        if self._process is not None:
            self._process.stop()

    def _terms(self) -> dict[str, Any]:
        """Return the account's part of every job. Raises: AcmeError, CannotRecord."""
        acme = self._acme
        eab = None
        if acme.eab_key_file is not None:
            eab = [acme.eab_key_id, read_key(acme.eab_key_file, "eab_key_file")]
        return {
            "directory": acme.directory,
            "account": account_key(self._config.server.state_dir, acme.directory).reveal().decode(),
            "contact": acme.contact,
            "ca_file": None if acme.ca_file is None else str(acme.ca_file),
            "eab": eab,
        }


def read_key(path: Path, key: str) -> str:
    """Read a base64 key from the file that the configuration's `key` names. Raises: AcmeError."""
    faults: list[Fault] = []
    line = first_line(path, key, faults)
    if line is None:
        raise AcmeError(f"{key} {faults[0].reason}")
    return line


def _row(line: bytes) -> dict[str, Any] | None:
    """Parse one line of the child's output; None if it is no JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
