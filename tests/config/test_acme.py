"""[acme] needs packages that an installation without the extra lacks; that is told, and nothing is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mailserver.config import check_names
from mailserver.config.load import parse
from tests.config.test_load import SOUND

ACME = SOUND + b'\n[acme]\nterms_of_service = "agreed"\n'


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told = parse(ACME, Path("/etc/mailserver/a.toml")).problems
    assert not [problem for problem in told if "acme" in problem.place]
    monkeypatch.setattr(check_names.importlib.util, "find_spec", lambda _name: None)
    told = parse(ACME, Path("/etc/mailserver/a.toml")).problems
    assert [str(problem) for problem in told if "acme" in problem.place] == [
        (
            "/etc/mailserver/a.toml [acme]: needs the packages of the extra acme: "
            "pip install -c constraints.txt '.[acme]' in the source"
        )
    ]


@pytest.mark.parametrize(
    "module", ["mailserver.problems", "mailserver.net.workers.master", "mailserver.zygote", "mailserver.cli"]
)
def test_only_the_child_process_imports_them(module: str) -> None:
    code = f"import sys, {module}; print({{'acme', 'josepy', 'requests'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
