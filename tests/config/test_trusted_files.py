"""What stops a start and a reload, because others could change it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mailserver.config import trusted_files
from mailserver.config.strict_modes import Trust
from mailserver.config.trusted_files import check_trusted
from mailserver.problems import find_problems
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.wiring.reload_check import check_reload
from tests.tls.site import Site, quiet

RELAY = """
[submission.relay]
host = "relay.example.net"
user = "us"
password_file = "relay-password"
ca_file = "relay-ca.pem"
"""
ACME = """
[acme]
terms_of_service = "agreed"
eab_key_id = "1"
eab_key_file = "eab"
ca_file = "acme-ca.pem"

[acme.dns]
hook = ["{dir}/hook", "s3cret"]
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    site.more = RELAY + ACME.format(dir=tmp_path)
    for name in ("relay-password", "relay-ca.pem", "eab", "acme-ca.pem", "hook"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o700)
    (tmp_path / "state").mkdir(mode=0o700)
    return site


def told(site: Site) -> dict[str, str]:
    errors = [problem for problem in check_trusted(site.config()) if not problem.warning]
    return {problem.place: str(problem).replace(str(site.directory), "DIR") for problem in errors}


PLACES = {
    "mailserver.toml": "",
    "state": "[server] state_dir",
    "relay-password": "[submission.relay] password_file",
    "relay-ca.pem": "[submission.relay] ca_file",
    "eab": "[acme] eab_key_file",
    "acme-ca.pem": "[acme] ca_file",
    "hook": "[acme.dns] hook",
}


def test_what_nobody_else_can_change_is_no_problem(site: Site) -> None:
    assert told(site) == {}


@pytest.mark.parametrize("name", PLACES)
def test_what_every_user_can_write(site: Site, name: str) -> None:
    site.write()
    (site.directory / name).chmod(0o707)
    problems = told(site)
    assert list(problems) == [PLACES[name]]
    (words,) = problems.values()
    assert words.endswith(f"DIR/{name} can be written by every user: chmod o-w")
    assert "s3cret" not in words


def test_the_directory_of_all_of_it(site: Site) -> None:
    site.directory.chmod(0o707)
    try:
        assert set(told(site)) == set(PLACES.values())
    finally:
        site.directory.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root gives files away")
@pytest.mark.parametrize("workers", [0, 2])
def test_what_belongs_to_the_services_user_is_trusted_where_that_user_reads_it(site: Site, workers: int) -> None:
    site.user = "mail"
    path = site.write()
    path.write_text(path.read_text().replace("[server]\n", f"[server]\nworkers = {workers}\n"))
    config, _problems = loaded(path)
    for name in PLACES:
        os.chown(site.directory / name, pwd.getpwnam("mail").pw_uid, 0)
    found = {problem.place for problem in check_trusted(config) if not problem.warning}
    of_root = {"", "[server] state_dir", "[acme] eab_key_file"}
    assert found == (of_root if workers else {""})


def loaded(path: Path) -> tuple:
    from mailserver.config.load import load

    config, problems = load(path)
    assert config is not None, problems
    return config, problems


def test_a_start_and_a_reload_are_stopped(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    (tmp_path / "users").touch(0o600)
    path = site.write()
    path.write_text(path.read_text().replace("/etc/mailserver/users", "users"))
    running, _problems = loaded(path)
    policy = TlsPolicy(running, quiet)
    assert check_reload(running, policy).prepared is not None
    running.source.chmod(0o646)
    line = f"{running.source}: is not used, as other users could change it: {running.source} can be written by every user: chmod o-w"
    config, problems = find_problems(running.source, starting=True)
    assert config is None
    assert line in map(str, problems)
    checked = check_reload(running, policy)
    assert checked.prepared is None
    assert line in checked.lines


@pytest.mark.skipif(os.geteuid() != 0, reason="only root need fear for the program")
def test_a_program_that_others_can_change_is_a_warning(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    config = site.config()
    monkeypatch.setattr(trusted_files, "program_fault", lambda: "/opt belongs to user anna")
    (problem,) = [problem for problem in check_trusted(config) if problem.warning]
    assert problem.reason == "other users could change the program, which root runs: /opt belongs to user anna"
    assert Trust(frozenset({0})).with_user(5).users == {0, 5}
