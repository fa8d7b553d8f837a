"""`mailserver` commands in processes of their own, forked from one that has loaded them (`tests.preloaded`).

For commands that run a reactor, end their process or are to run at once. Others cost less by click's CliRunner.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.preloaded import COMMAND, PRELOADED, Preloaded

ROOT = Path(__file__).resolve().parent.parent
TIME = 120
"""Seconds for a command that hangs."""


def run_process(
    *words: str,
    text: str = "",
    directory: Path | None = None,
    extra: Mapping[str, str] | None = None,
    by_exec: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the administrator's command with this input, in a directory, with `extra` in its environment.

    `by_exec`: as a new interpreter, which a PYTHONPATH of its own needs, too.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(extra or {})}
    where = directory or Path.cwd()
    if by_exec or not PRELOADED or (extra and "PYTHONPATH" in extra):
        return subprocess.run(
            [sys.executable, "-m", COMMAND, *words],
            cwd=where,
            env=environment,
            input=text,
            errors="surrogateescape",
            capture_output=True,
            text=True,
            check=False,
            timeout=TIME,
        )
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(text.encode(errors="surrogateescape"))
        given.seek(0)
        files = [given.fileno(), output.fileno(), errors.fileno()]
        process = _preloaded().start(words, where, environment, files)
        try:
            process.wait(TIME)
        finally:
            process.kill()
        assert process.returncode is not None
        for each in (output, errors):
            each.seek(0)
        return subprocess.CompletedProcess(
            [COMMAND, *words], process.returncode, output.read().decode(), errors.read().decode()
        )


@functools.cache
def _preloaded() -> Preloaded:
    """The one of this process."""
    return Preloaded(COMMAND)
