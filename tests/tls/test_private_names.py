"""The private names of pyOpenSSL that are needed: each is there, and without one nothing is served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL

from mailserver.problems import check_libraries
from mailserver.tls.context import private_names
from mailserver.tls.context.private_names import NAMES_OF_FFI, NAMES_OF_LIB
from tests.server import ROOT, Server


class Without:
    """Something without one of its names."""

    def __init__(self, thing: Any, name: str) -> None:
        self._thing, self._name = thing, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._thing, name)


def test_the_installed_version_has_all() -> None:
    assert private_names.missing() == []
    assert check_libraries() == []


@pytest.mark.parametrize("name", NAMES_OF_LIB)
def test_a_name_of_the_bindings_that_is_missing_is_a_problem(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_names, "_lib", Without(private_names._lib, name))
    _check(f"OpenSSL._util.lib.{name}")


@pytest.mark.parametrize("name", NAMES_OF_FFI)
def test_a_name_of_cffi_that_is_missing_is_a_problem(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_names, "_ffi", Without(private_names._ffi, name))
    _check(f"OpenSSL._util.ffi.{name}")


@pytest.mark.parametrize(
    ("connection", "context", "missing"),
    [
        ({"_ssl", "_reverse_mapping"}, set(), "Context._context"),
        ({"_reverse_mapping"}, {"_context"}, "Connection._ssl"),
        ({"_ssl"}, {"_context"}, "Connection._reverse_mapping"),
    ],
)
def test_a_handle_that_is_missing_is_a_problem(
    connection: set[str], context: set[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str, attributes: set[str]) -> type:
        return type(name, (), {"__init__": lambda *_arguments: None, **dict.fromkeys(attributes)})

    monkeypatch.setattr(
        private_names,
        "SSL",
        SimpleNamespace(
            TLS_SERVER_METHOD=SSL.TLS_SERVER_METHOD,
            Connection=make("Connection", connection),
            Context=make("Context", context),
        ),
    )
    _check(f"OpenSSL.SSL.{missing}")


def _check(name: str) -> None:
    assert private_names.missing() == [name]
    (problem,) = check_libraries()
    assert f"has no {name}, which this server needs: install a version of requirements/server.txt" in str(problem)


SITE = """
import OpenSSL._util
class Lib:
    def __getattr__(self, name):
        if name == "SSL_session_reused":
            raise AttributeError(name)
        return getattr(lib, name)
lib, OpenSSL._util.lib = OpenSSL._util.lib, Lib()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_start_refuses_and_says_why(workers: int, tmp_path: Path) -> None:
    server = Server(tmp_path / "server", workers=workers)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    server.extra["PYTHONPATH"] = f"{tmp_path / 'site'}:{ROOT}"
    done = server.run(*server.command())
    assert done.returncode == 1
    assert "has no OpenSSL._util.lib.SSL_session_reused, which this server needs" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    checked = subprocess.run(
        [sys.executable, "-m", "mailserver.cli", "check", "--config", str(server.config)],
        env=server.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 1
    assert "SSL_session_reused" in checked.stdout + checked.stderr
