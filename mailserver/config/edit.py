"""Edits of the configuration file by commands: everything else in the file stays unchanged, including comments."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import tomlkit

from mailserver.config.load import parse
from mailserver.config.model import Problem
from mailserver.system.atomic_file import replace_file


class EditRefused(Exception):
    """The file would be invalid after the change, and stays unchanged. `problems` says why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def add_domain(path: Path, name: str, hosts: Sequence[str], certificate: Path, key: Path) -> None:
    """Append a [[domain]] table.

    Raises: EditRefused if the file or the new table is invalid (a name or host exists already, for instance); OSError.
    """
    table = tomlkit.table()
    table.append("name", name)
    table.append("hosts", list(hosts))
    table.append("certificate", str(certificate))
    table.append("key", str(key))
    tables = tomlkit.document()
    tables.append("domain", tomlkit.aot())
    tables["domain"].append(table)
    with _locked(path) as real:
        old = real.read_bytes()
        # At the end of the file, a header cannot take keys from another table.
        gap = b"" if not old or old.endswith(b"\n\n") else b"\n" if old.endswith(b"\n") else b"\n\n"
        new = old + gap + tomlkit.dumps(tables).encode()
        _refuse_new_problems(old, new, path)
        replace_file(real, new)


def _refuse_new_problems(old: bytes, new: bytes, path: Path) -> None:
    """Refuse the change if it causes new problems. Earlier ones count only if the file cannot be parsed."""
    before = parse(old, path)
    after = parse(new, path)
    known = before.problems if after.config is not None else ()
    problems = [problem for problem in after.problems if problem not in known and not problem.warning]
    if problems:
        raise EditRefused(problems)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Lock the file, symbolic links followed, against other edits."""
    real = path.resolve(strict=True)
    while True:
        with open(real, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The previous holder of the lock may have replaced the file.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(real)):
                yield real
                return
