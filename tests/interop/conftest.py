"""Real clients against the started `twistd`, by name, over both address families.

Clients find `mail.example.test` and `mail.example.org` on loopback through an /etc/hosts of their own, in a mount
namespace (unshare); nothing on the machine is changed. A client that is not installed skips its tests, except in
continuous integration, where it fails them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from attrs import frozen

from tests.server import Server

DOMAINS = ("example.test", "example.org")
ADDRESSES = ("127.0.0.1", "::1")

pytestmark = pytest.mark.interop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/interop/"):
            item.add_marker(pytest.mark.interop)


@frozen
class Interop:
    """The server, and how clients are run against it."""

    server: Server
    wrong_ca: Path
    work: Path

    def need(self, program: str) -> None:
        """Skip without it, or fail in continuous integration."""
        if shutil.which(program) is None:
            message = f"{program} is not installed"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)

    def host(self, domain: str) -> str:
        return f"mail.{domain}"

    def run(
        self,
        *command: str,
        address: str = "127.0.0.1",
        check: bool = True,
        data: str | None = None,
        home: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A client with its own /etc/hosts and home."""
        self.need(command[0])
        hosts = self.work / f"hosts-{'6' if ':' in address else '4'}"
        names = " ".join(self.host(domain) for domain in DOMAINS)
        hosts.write_text(f"{address} {names}\n{address} localhost\n")
        home = home or self.work / "home"
        home.mkdir(exist_ok=True)
        user = [] if os.getuid() == 0 else ["--map-root-user"]
        inside = 'mount --bind "$1" /etc/hosts; shift; exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", *user, "sh", "-ec", inside, "sh", str(hosts), *command],
            capture_output=True,
            text=True,
            input=data,
            timeout=120,
            check=False,
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "LANG": "C.UTF-8"}
            | (environment or {}),
            errors="replace",
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done


@pytest.fixture(scope="session")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interop]:
    work = tmp_path_factory.mktemp("interop")
    if subprocess.run(["unshare", "--mount", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        if os.environ.get("CI"):
            pytest.fail("unshare does not work")
        pytest.skip("unshare does not work here")
    wrong = work / "wrong-ca.pem"
    trustme.CA().cert_pem.write_to_path(str(wrong))
    with Server(work / "server") as server:
        yield Interop(server, wrong, work)
    assert "bug session=" not in server.log, server.log[-6000:]
    assert "Unhandled" not in server.log, server.log[-6000:]


@pytest.fixture(params=DOMAINS)
def domain(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=ADDRESSES)
def address(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["implicit", "starttls"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
