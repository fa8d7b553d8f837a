"""Certificates and keys that others could change: refused for their own names, at a start and at a reload."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.strict_modes import Trust
from mailserver.problems import find_problems
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.wiring.reload_check import check_reload, read_policy
from tests.tls.client_authority import ClientAuthority
from tests.tls.site import TEST, Client, Site, quiet

NAME = TEST[0]


def told(site: Site, *, starting: bool = False) -> dict[str, bool]:
    """Place -> is it a warning, of what is said of rights."""
    problems = validation.check(site.config(), starting=starting)
    return {problem.place: problem.warning for problem in problems if "other users could change it" in problem.reason}


@pytest.mark.parametrize("unsafe", ["certificate", "key"])
def test_an_unsafe_file_keeps_the_last_good_one_for_that_name_alone(policy: TlsPolicy, site: Site, unsafe: str) -> None:
    before = Client().connect(policy, NAME.encode()).fingerprint
    org = Client().connect(policy, b"mail.example.org").fingerprint
    site.renew("example.test")
    site.renew("example.org")
    path: Path = getattr(site, unsafe)("example.test")
    mode = path.stat().st_mode
    path.chmod(0o666)
    outcomes = {outcome.name: outcome for outcome in policy.reload(site.config())}
    assert outcomes[NAME].state == "refused"
    assert outcomes[NAME].why == (
        f"{unsafe} is not used, as other users could change it: {path} can be written by every user: chmod o-w"
    )
    assert Client().connect(policy, NAME.encode()).fingerprint == before
    assert Client().connect(policy, b"mail.example.org").fingerprint != org
    assert told(site) == {f"[domain 1] {unsafe}": False}
    assert told(site, starting=True) == {f"[domain 1] {unsafe}": True}, "something else is served"
    path.chmod(mode)
    assert {outcome.name: outcome.state for outcome in policy.reload(site.config())}[NAME] == "taken up"


def test_at_the_start_something_else_is_served(site: Site) -> None:
    site.key("example.test").chmod(0o662)
    config, problems = find_problems(site.config().source, starting=True)
    assert all(problem.warning for problem in problems if "certificate" in problem.place)
    del config
    policy, _activation = read_policy(site.config())
    assert Client().connect(policy, NAME.encode()).names == (NAME,)
    assert policy.served.by_host[NAME].origin == "self-signed"
    assert policy.served.by_host["mail.example.org"].origin == "file"


def test_the_directory_counts_as_well(policy: TlsPolicy, site: Site) -> None:
    site.directory.chmod(0o777)
    try:
        assert {outcome.state for outcome in policy.reload(site.config())} == {"refused"}
    finally:
        site.directory.chmod(0o700)


def test_a_second_pair_that_is_unsafe_leaves_the_first(site: Site) -> None:
    (site.directory / "second.pem").write_text("not read")
    (site.directory / "second.key").write_text("not read")
    (site.directory / "second.key").chmod(0o602)
    site.of_domain["example.test"] = ['second_certificate = "second.pem"\nsecond_key = "second.key"']
    assert told(site) == {"[domain 1] second_key": False}
    assert told(site, starting=True) == {"[domain 1] second_key": True}
    policy, _activation = read_policy(site.config())
    assert policy.served.by_host[NAME].origin == "file"
    assert policy.served.by_host[NAME].terms.second is None


def test_an_unsafe_authority_of_clients_refuses_its_name(site: Site) -> None:
    authority = site.directory / "clients.pem"
    authority.write_bytes(ClientAuthority().pem)
    site.of_domain["example.test"] = ['client_certificates = "required"\nclient_ca = "clients.pem"']
    policy = TlsPolicy(site.config(), quiet)
    authority.chmod(0o646)
    outcomes = {outcome.name: outcome for outcome in policy.reload(site.config())}
    assert outcomes[NAME].state == "refused"
    assert "client_ca is not used" in outcomes[NAME].why
    assert policy.served.by_host[NAME].terms.demand.certificates == "required"
    assert told(site, starting=True) == {"[domain 1] client_ca": False}


@pytest.mark.parametrize("argument", [False, True], ids=["the program", "a file that it is given"])
def test_a_command_that_others_could_change_is_not_run(site: Site, argument: bool) -> None:
    script = site.directory / "password"
    script.write_text(f"#!/bin/sh\ntouch {site.directory}/ran\necho word\n")
    script.chmod(0o755)
    words = ["/bin/sh", str(script)] if argument else [str(script)]
    site.of_domain["example.test"] = [f"key_password_command = {words!r}"]
    running = site.config()
    policy = TlsPolicy(running, quiet)
    assert (site.directory / "ran").exists()
    (site.directory / "ran").unlink()
    script.chmod(0o757)
    config, problems = find_problems(running.source, starting=True)
    assert config is None
    (problem,) = [problem for problem in problems if problem.place == "[domain 1] key_password_command"]
    assert problem.reason == (
        f"is not run, as other users could change it: {script} can be written by every user: chmod o-w"
    )
    checked = check_reload(running, policy)
    assert checked.prepared is None
    assert str(problem) in checked.lines
    assert not (site.directory / "ran").exists()


def test_who_reads_the_keys_is_trusted(site: Site) -> None:
    domain = site.config().domains[0]
    nobody = Trust(frozenset())
    now = validation.dt.datetime.now(validation.dt.UTC)
    assert {fault.key for fault in validation.domain_faults(domain, now, site.config().tls, nobody)} >= {"key"}
    assert validation.domain_faults(domain, now, site.config().tls) == []
