"""Validate the files that [acme] names. No message shows their content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mailserver.config.directories import Identity
from mailserver.config.model import Acme, Config, Problem
from mailserver.config.values import as_toml
from mailserver.tls.keypair.pair import BadPair, read_authorities
from mailserver.tls.keypair.pem import Fault, read_file

LONGEST: Final = 1024
"""Octets of a key in base64."""


def acme_problems(config: Config, identity: Identity) -> Iterator[Problem]:
    """Yield every problem; `identity` is the service's user, under which the child process runs."""
    acme = config.acme
    if acme is None or not config.acme_hosts:
        return
    for table, fault in (*_of_keys(acme), *_of_service(acme, identity)):
        value = as_toml(Path(fault.value)) if fault.value else ""
        yield config.problem(f"{table} {fault.key}", value, fault.reason, warning=fault.warning)


def first_line(path: Path, key: str, faults: list[Fault]) -> str | None:
    """Read a base64 key from the first line of a file.

    Return None, and add a fault of the configuration's `key`, if there is none.
    """
    octets = read_file(path, key, faults)
    if octets is None:
        return None
    line = octets.partition(b"\n")[0].strip()
    if not 0 < len(line) <= LONGEST or not line.isascii():
        faults.append(Fault(key, "holds no key on its first line"))
        return None
    return line.decode()


def _of_keys(acme: Acme) -> Iterator[tuple[str, Fault]]:
    """Check the files that the process with the certificates' keys reads."""
    dns_file = acme.dns.key_file if acme.dns is not None else None
    for table, key, path in (("[acme]", "eab_key_file", acme.eab_key_file), ("[acme.dns]", "key_file", dns_file)):
        if path is None:
            continue
        faults: list[Fault] = []
        if first_line(path, key, faults) is not None and os.stat(path).st_mode & 0o006:
            reason = "can be read or changed by every user of this machine: chmod 600, and renew what was in it"
            faults.append(Fault(key, reason, warning=True))
        yield from ((table, fault) for fault in faults)


def _of_service(acme: Acme, identity: Identity) -> Iterator[tuple[str, Fault]]:
    """Check what the service's user reads, writes and runs."""
    if acme.ca_file is not None:
        try:
            read_authorities(acme.ca_file)
        except BadPair as bad:
            yield from (("[acme]", Fault("ca_file", fault.reason, value=str(acme.ca_file))) for fault in bad.faults)
        else:
            if not identity.may_open(acme.ca_file):
                reason = f"cannot be read by user {identity.name!r}, which connects to the authority"
                yield "[acme]", Fault("ca_file", reason, value=str(acme.ca_file))
    if acme.webroot is not None and not _may(identity, acme.webroot, os.W_OK | os.X_OK):
        reason = f"must be a directory in which user {identity.name!r} may write"
        yield "[acme]", Fault("webroot", reason, value=str(acme.webroot))
    if acme.dns is not None and acme.dns.hook and not _may(identity, Path(acme.dns.hook[0]), os.X_OK):
        # Its arguments may be secret.
        yield "[acme.dns]", Fault("hook", f"names no program that user {identity.name!r} may run")


def _may(identity: Identity, path: Path, wanted: int) -> bool:
    try:
        reachable = all(identity.may(os.stat(parent), os.X_OK) for parent in path.parents)
        return reachable and path.is_dir() == bool(wanted & os.W_OK) and identity.may(os.stat(path), wanted)
    except OSError:
        return False
