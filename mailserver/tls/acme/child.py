"""Where keys are read: a job at an ACME authority, done by a child process without those rights (`acme_client`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mailserver.config.model import Acme, Config
from mailserver.system.as_user import UserProcess, other_user
from mailserver.tls.acme.acme_state import account_key
from mailserver.tls.acme.files import first_line
from mailserver.tls.keypair.pair import Fault
from mailserver.tls.keypair.sanitize import printable
from mailserver.tls.state.history import CannotRecord

PATIENCE: Final = 480.0
"""Seconds until the child process is ended."""
LONGEST: Final = 1 << 20
"""Octets of its answer."""


class NotObtained(Exception):
    """The authority has not done it; the text says why, and is fit to be shown."""

    def __init__(self, reason: str, retry_after: int = 0, *, decided: bool = False, code: str = "") -> None:
        super().__init__(printable(reason))
        self.code = code
        """The type of its problem (RFC 8555 6.7), or ""."""
        self.retry_after = retry_after
        """Seconds that it would have us wait."""
        self.decided = decided
        """By the authority: what was asked for will not be had by asking on."""


class Child:
    """Of one job."""

    def __init__(self, config: Config) -> None:
        """`config` has an [acme]."""
        assert config.acme is not None
        self._config = config
        self._acme: Acme = config.acme
        self._process: UserProcess | None = None
        self._stopped = False

    def ask(
        self, do: str, job: dict[str, Any], *, seconds: float = PATIENCE, order: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """What comes of a job; `order` gets the address of an order as soon as there is one. Blocks. Raises: NotObtained."""

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
            raise NotObtained(str(error)) from error
        row = _row(answer.rstrip(b"\n").rpartition(b"\n")[2])
        match row:
            case {"error": str(why), "code": str(code), "retry_after": int(retry_after), "decided": bool(decided)}:
                raise NotObtained(why, retry_after, decided=decided, code=code)
            case {"order": _} | None:
                raise NotObtained("the process that asks the authority was ended, or its log has more")
        return row

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped = True
        if self._process is not None:
            self._process.stop()

    def _terms(self) -> dict[str, Any]:
        """On which the authority is asked. Raises: NotObtained, CannotRecord."""
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
    """A key in base64, of the file that the configuration's `key` names. Raises: NotObtained."""
    faults: list[Fault] = []
    line = first_line(path, key, faults)
    if line is None:
        raise NotObtained(f"{key} {faults[0].reason}")
    return line


def _row(line: bytes) -> dict[str, Any] | None:
    """One object of the child's; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
