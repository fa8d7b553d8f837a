"""Checks of files that a process trusts or runs: it refuses those that other users could change, as sshd's StrictModes.

Certificates and keys of domains are checked elsewhere (`tls.serving.validation`), where an unsafe one is refused only for
its own host names. A problem found here stops a start and a reload.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mailserver.config.directories import reader_trust, service_identity
from mailserver.config.model import Config, Problem
from mailserver.config.strict_modes import Trust, program_fault, trust, unsafe
from mailserver.config.values import as_toml

UNSAFE = "is not used, as other users could change it"


def check_trusted(config: Config) -> list[Problem]:
    """Find files that users without rights over the server could change. Raises nothing."""
    return list(_problems(config))


def command_fault(command: tuple[str, ...], trusted: Trust) -> str:
    """The reason why a command is not run: others could change its program or a file among its arguments; or ""."""
    program = shutil.which(command[0])
    files = [*([program] if program else []), *(word for word in command[1:] if word.startswith("/"))]
    faults = (unsafe(Path(word), trusted) for word in files if os.path.isfile(word))
    return next((f"is not run, as other users could change it: {fault}" for fault in faults if fault), "")


def _problems(config: Config) -> Iterator[Problem]:
    if fault := unsafe(config.source, trust()):
        yield config.problem("", "", f"{UNSAFE}: {fault}")
    if os.geteuid() == 0 and (fault := program_fault()):
        yield config.problem("", "", f"other users could change the program, which root runs: {fault}", warning=True)
    readers = reader_trust(config)
    state_dir = config.server.state_dir
    if fault := unsafe(state_dir, readers):
        reason = f"has keys and certificates that other users could change: {fault}"
        yield config.problem("[server] state_dir", as_toml(state_dir), reason)
    for domain in config.domains_and_sites:
        if domain.key_password_command and (fault := command_fault(domain.key_password_command, readers)):
            # Its arguments may contain a secret.
            yield config.problem(f"{domain.place} key_password_command", "", fault)
    yield from _of_acme(config, readers)
    yield from _of_relay(config)


def _of_acme(config: Config, readers: Trust) -> Iterator[Problem]:
    acme = config.acme
    if acme is None:
        return
    service = trust().with_user(service_identity(config).uid)
    paths = [("[acme] eab_key_file", acme.eab_key_file, readers), ("[acme] ca_file", acme.ca_file, service)]
    if acme.dns is not None:
        paths.append(("[acme.dns] key_file", acme.dns.key_file, readers))
        if acme.dns.hook and (fault := command_fault(acme.dns.hook, service)):
            yield config.problem("[acme.dns] hook", "", fault)
    yield from _of_paths(config, paths)


def _of_relay(config: Config) -> Iterator[Problem]:
    relay = config.submission.relay
    if relay is None:
        return
    service = trust().with_user(service_identity(config).uid)
    keys = ("password_file", "ca_file", "certificate", "key", "key_password_file")
    yield from _of_paths(config, [(f"[submission.relay] {key}", getattr(relay, key), service) for key in keys])


def _of_paths(config: Config, paths: list[tuple[str, Path | None, Trust]]) -> Iterator[Problem]:
    for place, path, trusted in paths:
        if path is not None and (fault := unsafe(path, trusted)):
            yield config.problem(place, as_toml(path), f"{UNSAFE}: {fault}")
