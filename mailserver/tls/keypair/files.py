"""The files of certificates as they lie on disk: have they changed, and where must one look to see it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from mailserver.config.model import Config, Domain
from mailserver.tls.keypair import published_ca

Signature: TypeAlias = tuple[tuple[int, ...], ...]
"""What tells one content of some files from another; a file that is not there has an empty part."""

_MOST_LINKS = 40
"""As many as Linux follows."""


def signature(paths: Iterable[Path]) -> Signature:
    """Of the files that the paths lead to now. Raises nothing."""
    return tuple(map(_part, paths))


def _part(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as fault:
        return (fault.errno or 0,)
    # A change within the file's size and a tick of its mtime still has another ctime.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def paths_of(domain: Domain) -> tuple[Path, ...]:
    """The files of its certificates and keys, and of its clients' authorities and revocation lists."""
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


def followed(config: Config) -> dict[tuple[str, ...], tuple[Path, ...]]:
    """The hosts of each domain that has files -> these; no hosts -> those of the own authority."""
    found = {domain.hosts: paths_of(domain) for domain in config.certified}
    found[()] = published_ca.paths_of(config.tls)
    return {hosts: paths for hosts, paths in found.items() if paths}


def directories(path: Path) -> set[str]:
    """Where names lie that decide what the path leads to: the file's own, and those of all links on the way.

    certbot's live/NAME/fullchain.pem is a link into archive/NAME; others change a link of a directory.
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
