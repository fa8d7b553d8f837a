"""State of certificate files on disk: whether they have changed, and which directories to watch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from mailserver.config.model import Config, Domain
from mailserver.tls.keypair import published_ca

FileStates: TypeAlias = tuple[tuple[int, ...], ...]
"""Identifies the content of some files; the entry of a missing file is its errno."""

_MOST_LINKS = 40
"""Linux's own limit."""


def file_states(paths: Iterable[Path]) -> FileStates:
    """Return the states of the files that the paths lead to now. Raises nothing."""
    return tuple(map(_state, paths))


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as fault:
        return (fault.errno or 0,)
    # ctime shows a change that keeps the size and falls into the same tick of mtime.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def paths_of(domain: Domain) -> tuple[Path, ...]:
    """Return the files of a domain's certificates and keys, client authorities and revocation lists."""
    found = (
        domain.certificate,
        domain.key,
        domain.second_certificate,
        domain.second_key,
        domain.key_password_file,
        domain.client_ca,
        domain.client_crl,
    )
    return tuple(path for path in found if path is not None)


def watched_files(config: Config) -> dict[tuple[str, ...], tuple[Path, ...]]:
    """Return the hosts of each domain with files -> these files; () -> those of the published authority."""
    found = {domain.hosts: paths_of(domain) for domain in config.domains_and_sites}
    found[()] = published_ca.paths_of(config.tls)
    return {hosts: paths for hosts, paths in found.items() if paths}


def directories(path: Path) -> set[str]:
    """Return the directories whose entries decide what the path leads to: the file's own, and those of all links.

    certbot's live/NAME/fullchain.pem is a link into archive/NAME; other programs replace a link to a directory.
    """
    found = set()
    links = 0
    rest = list(reversed(Path(os.path.abspath(path)).parts[1:]))
    at = "/"
    while rest:
        step = rest.pop()
        if step == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, step)
        try:
            target = os.readlink(here)
        except OSError:
            if not rest:
                found.add(at)
            at = here
            continue
        found.add(at)
        links += 1
        if links > _MOST_LINKS:
            break
        if target.startswith("/"):
            at = "/"
        rest += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return found
