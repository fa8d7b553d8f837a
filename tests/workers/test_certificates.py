"""Certificates of a running server: renewed on disk in every way under load, added, taken back, and missing at the start."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.tls.ca.authority import issue
from tests import sweeps
from tests.live.client import eventually
from tests.live.conftest import no_bug
from tests.live.test_reload import serial
from tests.server import Server
from tests.workers.processes import Load, held_in_each, replace_all, workers, works

ORG, TEST = "mail.example.org", "mail.example.test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, workers=2, follow=True)
    yield server
    server.stop()
    no_bug(server.log)


def pair(server: Server, *hosts: str) -> tuple[bytes, bytes]:
    return issue((server.ca.read_bytes(), (server.dir / "state/ca/ca.key").read_bytes()), hosts or [ORG])


class Renewals:
    """The ways in which files change, each used in turn."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.number = itertools.count(1)
        live, archive = server.dir / "live", server.dir / "archive"
        for path in (live, archive):
            path.mkdir()
        self.live, self.archive = live, archive
        self.links()
        server.replace(f'"{server.dir}/certs/{ORG}.pem"', f'"{live}/fullchain.pem"')
        server.replace(f'"{server.dir}/certs/{ORG}.key"', f'"{live}/privkey.pem"')

    def links(self) -> None:
        """As certbot does: new files, then the links."""
        number = next(self.number)
        for name, octets in zip(("fullchain", "privkey"), pair(self.server), strict=True):
            target = self.archive / f"{name}{number}.pem"
            target.write_bytes(octets)
            link = self.live / f"{name}.new"
            link.symlink_to(f"../archive/{target.name}")
            os.rename(link, self.live / f"{name}.pem")

    def renames(self) -> None:
        """Files put in place whole."""
        for name, octets in zip(("fullchain", "privkey"), pair(self.server), strict=True):
            new = self.live / f"{name}.new"
            new.write_bytes(octets)
            os.rename(new, self.live / f"{name}.pem")

    def in_place(self) -> None:
        """Written over, half by half, the key later."""
        for name, octets in zip(("fullchain", "privkey"), pair(self.server), strict=True):
            with (self.live / f"{name}.pem").open("wb") as file:
                file.write(octets[: len(octets) // 2])
                file.flush()
                time.sleep(0.05)
                file.write(octets[len(octets) // 2 :])

    def directory(self) -> None:
        """The whole directory by one link."""
        number = next(self.number)
        made = self.server.dir / f"set{number}"
        made.mkdir()
        for name, octets in zip(("fullchain", "privkey"), pair(self.server), strict=True):
            (made / f"{name}.pem").write_bytes(octets)
        link = self.server.dir / "live.new"
        link.symlink_to(made)
        if not self.live.is_symlink():
            os.rename(self.live, self.server.dir / "live.old")
        os.rename(link, self.live)


def renew(server: Server, way: Callable[[], None]) -> float:
    """Seconds until all workers serve what a renewal has left."""
    before = serial(server, ORG)
    way()
    begun = time.monotonic()
    eventually(lambda: serial(server, ORG) != before)
    # Each worker takes it up by itself, one a moment after the other.
    eventually(lambda: len(seen := {serial(server, ORG) for _ in range(8)}) == 1 and before not in seen)
    return time.monotonic() - begun


def renew_under_load(server: Server, rounds: int) -> list[float]:
    renewals = Renewals(server)
    taken = []
    with server:
        other = serial(server, TEST)
        sessions = held_in_each(server, 2)
        with Load(server, threads=2) as load:
            for _ in range(rounds):
                ways = (renewals.links, renewals.renames, renewals.in_place, renewals.directory)
                taken += [renew(server, way) for way in ways]
            load.more()
        assert not load.faults
        assert all(works(client) for client in sessions.values())
        assert set(workers(server)) == set(sessions), "a renewal replaces no worker"
        assert serial(server, TEST) == other
    return taken


ROUNDS = sweeps.choose(1, whole=25)
"""Of all ways; a hundred renewals in `make soak`."""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_renewals_on_disk_are_served_by_all_workers_and_no_connection_fails(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    taken = renew_under_load(server, ROUNDS)
    assert len(taken) == 4 * ROUNDS
    record_property("slowest", max(taken))
    history = json.loads(server.run_cli("cert", "history", ORG, "--json", "--config", str(server.config)).stdout)
    assert len(history) == len(taken) + 1, "the first, and each renewal: all of them are young"


def cert(server: Server, *words: str, check: bool = True) -> list[str]:
    done = server.run_cli("cert", *words, "--config", str(server.config), check=check)
    return (done.stdout + done.stderr).splitlines()


def test_half_a_renewal_leaves_the_last_good_one_and_touches_no_other(server: Server) -> None:
    with server:
        before, other = serial(server, ORG), serial(server, TEST)
        certificate, key = pair(server)
        (server.dir / f"certs/{ORG}.pem").write_bytes(certificate)
        found = server.wait_for(rf"certificate: {ORG}: refused: (.*) event=")
        assert "does not belong to the certificate" in found[1]
        assert (serial(server, ORG), serial(server, TEST)) == (before, other)
        assert any("last good" in line for line in cert(server, "list"))
        (server.dir / f"certs/{ORG}.key").write_bytes(key)
        eventually(lambda: serial(server, ORG) != before)


def test_a_domain_without_files_starts_self_signed_and_is_given_one(server: Server) -> None:
    text = server.config.read_text()
    lines = [line for line in text.splitlines() if f"certs/{ORG}" not in line]
    server.config.write_text("\n".join(lines) + "\n")
    paths = [server.dir / "added.pem", server.dir / "added.key"]
    for path, octets in zip(paths, pair(server), strict=True):
        path.write_bytes(octets)
    options = ("--certificate", str(paths[0]), "--key", str(paths[1]))
    with server:
        assert f'TLS certificate host={ORG} warning="is self-signed' in server.log
        assert "its certificate is self-signed" in server.run_cli("status", "--config", str(server.config)).stderr
        assert "nothing was changed" in cert(server, "add", TEST, *options, check=False)
        assert cert(server, "add", *options)[0].startswith(f"{ORG}: taken up")
        first = serial(server, ORG)
        assert {serial(server, ORG) for _ in range(8)} == {first}
        replace_all(server)
        assert {serial(server, ORG) for _ in range(8)} == {first}
        for path, octets in zip(paths, pair(server), strict=True):
            path.write_bytes(octets)
        cert(server, "add", *options)
        assert serial(server, ORG) != first
        cert(server, "rollback", ORG)
        assert {serial(server, ORG) for _ in range(8)} == {first}
    with server:
        assert serial(server, ORG) == first


def test_with_a_broken_file_the_start_serves_the_last_good_one(server: Server) -> None:
    with server:
        before = serial(server, ORG)
    (server.dir / f"certs/{ORG}.pem").write_bytes(b"not PEM")
    assert server.run_cli("check", "--config", str(server.config), check=False).returncode == 1
    with server:
        assert serial(server, ORG) == before
        assert "last good" in server.log
