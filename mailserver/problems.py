"""The check of a whole configuration: the file, and everything that it names."""

from __future__ import annotations

import os
from pathlib import Path

import OpenSSL

from mailserver.auth.backends import backend_check
from mailserver.config import load
from mailserver.config.directories import check_directories
from mailserver.config.model import Config, Problem
from mailserver.config.socket_rights import check_sockets
from mailserver.config.trusted_files import check_trusted
from mailserver.dkim.key_file import exposed, read_signing
from mailserver.imap.search import criteria
from mailserver.pop3 import uidl
from mailserver.smtp import postmaster_check
from mailserver.tls.context import private_names
from mailserver.tls.serving import validation


def check_named(config: Config) -> list[Problem]:
    """Find every problem of what a configuration names, except certificates. Raises nothing."""
    return [
        *check_trusted(config),
        *backend_check.check(config),
        *uidl.check(config),
        *criteria.check(config),
        *postmaster_check.check(config),
        *check_directories(config),
        *check_sockets(config),
        *check_dkim_keys(config),
    ]


def check_dkim_keys(config: Config) -> list[Problem]:
    """Find domains whose DKIM keys cannot be read, or may be known to others. Their mail goes on, so these are warnings."""
    directory = config.server.state_dir
    if not os.access(directory, os.X_OK):
        return []  # whoever checks is not the user that reads keys
    faults = dict(read_signing(directory, config.signed_domains).problems)
    problems = []
    for domain in config.domains:
        if domain.name in faults:
            reason = f"leaves its mail unsigned: {faults[domain.name]}"
        elif not (reason := exposed(directory, domain.name)):
            continue
        problems.append(config.problem(f"{domain.place} dkim", f'"{domain.dkim}"', reason, warning=True))
    return problems


def check_libraries() -> list[Problem]:
    """Find private names of pyOpenSSL that correct TLS needs and the installed version lacks."""
    if not (missing := private_names.missing()):
        return []
    reason = f"has no {', '.join(missing)}, which this server needs: install a version of requirements/server.txt"
    return [Problem(f"pyOpenSSL {OpenSSL.__version__}", "", "", reason)]


def find_problems(path: Path, *, starting: bool = False, embedded: bool = False) -> tuple[Config | None, list[Problem]]:
    """Find every problem of the file and of what it names: certificates, users, directories, and Dovecot's files in accounts.

    Return the configuration, or None if the server cannot start with it; and all problems. With `starting` a certificate
    that cannot be served is a warning, and accounts are not examined. Raises nothing. `embedded`: see `load.read`.
    """
    reading = load.read(path, embedded=embedded)
    if reading.config is None:
        return None, list(reading.problems)
    config = reading.config
    if faults := check_libraries():
        return None, reading.with_problems(faults)
    problems = reading.with_problems([*validation.check(config, starting=starting), *check_named(config)])
    if not starting and all(problem.warning for problem in problems):
        from mailserver import adoption  # noqa: PLC0415 - a master needs nothing of the store

        problems += adoption.check(config)
    return (config if all(problem.warning for problem in problems) else None), problems
