"""Compilation of the project's modules by all processes of pytest-xdist together, where nothing is compiled yet.

In a fresh clone each process would rewrite the assertions of every test module for itself, which takes longer than many
tests do: all of them come to the same module at the same time. Here each begins with a part of its own.
"""

from __future__ import annotations

import compileall
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.internal import charmap

ROOT = Path(__file__).resolve().parent.parent


def share_work(config: pytest.Config, number: int, count: int) -> None:
    """Compile and import, in process `number` of `count`, what the tests are going to import."""
    if number == 0:
        # Hypothesis keeps this table in a file; to make it takes seconds.
        charmap.intervals_from_codec("utf-8")
    modules = list(test_modules(config))
    if len(modules) < 2 * count:
        return
    sources = sorted(path for folder in ("mailserver", "tests") for path in (ROOT / folder).rglob("*.py"))
    for path in [path for path in sources if not path.name.startswith("test_")][number::count]:
        compileall.compile_file(path, quiet=2)
    start = number * len(modules) // count
    for path in (*modules[start:], *modules[:start]):
        try:
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        except Exception:
            # The collection comes to the same module, and reports what is wrong.
            return


def test_modules(config: pytest.Config) -> Iterator[Path]:
    """The test modules below the folders of the command line, without those that it leaves out."""
    ignored = {config.invocation_params.dir / path for path in config.getoption("ignore") or ()}
    for argument in config.args:
        folder = config.invocation_params.dir / argument
        for path in sorted(folder.rglob("test_*.py")):
            if not ignored.intersection((path, *path.parents)):
                yield path
