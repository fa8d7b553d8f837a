"""`mailserver cert` on the state directory, where no server runs, and what it asks of one that does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mailserver.cli import control
from mailserver.cli.control import Answer
from mailserver.cli.root import main
from mailserver.tls.ca.authority import alternatives, certificate_pem, key_pem, make_authority, make_key, sign
from mailserver.tls.serving import validation
from tests.tls.site import Site, authority

TEST, ORG = "mail.example.test", "mail.example.org"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path).add("example.test", [TEST]).add("example.org", [ORG])
    site.managed.add("example.org")
    site.write()
    return site


def run(site: Site, *words: str) -> Result:
    return CliRunner().invoke(main, ["cert", *words, "--config", str(site.directory / "mailserver.toml")])


def given(site: Site, *hosts: str, days: int = 397) -> tuple[str, ...]:
    certificate, key = validation.issue(authority(), hosts or [ORG], days=days)
    for name, octets in (("new.pem", certificate), ("new.key", key)):
        (site.directory / name).write_bytes(octets)
    return "--certificate", str(site.directory / "new.pem"), "--key", str(site.directory / "new.key")


def listed(site: Site) -> dict[str, dict[str, object]]:
    return {row["host"]: row for row in json.loads(run(site, "list", "--json").stdout)}


def test_added_shown_and_taken_back(site: Site) -> None:
    assert listed(site)[ORG]["origin"] == "self-signed"
    done = run(site, "add", ORG.upper(), *given(site), "--reason", "the first")
    assert done.exit_code == 0, done.output
    first = listed(site)[ORG]
    assert (first["origin"], first["reason"]) == ("added", "the first")
    assert run(site, "add", *given(site)).exit_code == 0
    assert listed(site)[ORG]["fingerprint"] != first["fingerprint"]
    done = run(site, "rollback", ORG.upper())
    assert done.exit_code == 0, done.output
    assert listed(site)[ORG]["fingerprint"] == first["fingerprint"]
    rows = json.loads(run(site, "history", ORG.upper(), "--json").stdout)
    assert [row["restores"] for row in rows] == [first["activation"], None, None]
    assert run(site, "activate", ORG.upper(), str(rows[1]["id"])).exit_code == 0
    assert listed(site)[ORG]["fingerprint"] == rows[1]["fingerprint"]
    assert "the first" in run(site, "history").output
    strange = run(site, "history", "mail.example.net")
    assert strange.exit_code == 1
    assert "mail.example.net: has no history" in strange.output


def test_show(site: Site) -> None:
    run(site, "add", *given(site))
    output = run(site, "show", ORG).stdout
    assert "CN=Authority of the tests" in output
    assert "added by the administrator" in output
    assert run(site, "show", ORG, "--pem").stdout.strip() == (site.directory / "new.pem").read_text().strip()
    (row,) = [row for row in listed(site).values() if row["host"] == ORG]
    assert json.loads(run(site, "show", ORG, "--json").stdout) == row
    told = dict(line.split(maxsplit=1) for line in output.splitlines() if not line.startswith("second"))
    assert (told["names:"], told["key:"]) == (ORG, "ECDSA, secp256r1")
    assert told["SHA-256:"] == row["fingerprint"]
    assert told["until:"] == f"{row['not_after'][:16].replace('T', ' ')} UTC, {row['days_left']} days"
    run(site, "add", *given(site, days=1))
    assert re.search(r"(?m)^until: .* UTC, less than a day, ends soon$", run(site, "show", ORG).stdout)
    missing = run(site, "show", "nobody.example.test")
    assert missing.exit_code == 1
    assert f"there are {ORG}, {TEST}" in missing.output


def test_both_of_two_certificates_are_shown(site: Site) -> None:
    key = make_key("rsa2048")
    made = make_authority("Of RSA", key)
    second = sign(made, key.public_key(), x509.Name([]), alternatives([ORG, "imap.example.org"]), "server", days=9)
    (site.directory / "rsa.pem").write_bytes(certificate_pem(second))
    (site.directory / "rsa.key").write_bytes(key_pem(key))
    beside = ("--second-certificate", site.directory / "rsa.pem", "--second-key", site.directory / "rsa.key")
    done = run(site, "add", ORG, *given(site), *map(str, beside))
    assert done.exit_code == 0, done.output
    lines = run(site, "show", ORG).stdout.splitlines()
    assert "second key:     RSA, 2048 bits" in lines
    assert "second issuer:  CN=Of RSA" in lines
    assert f"second names:   {ORG}, imap.example.org" in lines
    assert f"second SHA-256: {second.fingerprint(hashes.SHA256()).hex()}" in lines


def test_what_is_refused_is_told_with_status_1_and_changes_nothing(site: Site) -> None:
    for words, said in (
        (("add", TEST, *given(site, TEST)), "has files in its [[domain]]"),
        (("add", ORG, *given(site, "other.example.org")), "is not covered by the certificate"),
        (("rollback", ORG), "no earlier certificate"),
        (("activate", ORG, "99"), "has no activation 99"),
        (("activate", ORG, "file"), "names no files"),
    ):
        done = run(site, *words)
        assert done.exit_code == 1
        assert said in done.output
        assert "nothing was changed" in done.output
    assert run(site, "activate", ORG, "nonsense").exit_code == 2
    assert listed(site)[ORG]["origin"] == "self-signed"


def test_without_a_state_directory_it_says_why(site: Site) -> None:
    (site.directory / "state").write_text("")
    done = run(site, "list")
    assert done.exit_code == 1
    assert "cannot be used" in done.output


def test_a_running_server_gets_the_octets_and_no_path(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def ask(_runtime_dir: Path, request: str, **arguments: str) -> Answer:
        asked.append((request, arguments))
        return Answer(False, ("no",))

    monkeypatch.setattr(control, "ask", ask)
    options = given(site)
    done = run(site, "add", ORG, *options)
    assert done.exit_code == 1
    ((request, arguments),) = asked
    assert request == "cert-add"
    assert arguments["hosts"] == ORG
    assert arguments["chain"] == (site.directory / "new.pem").read_text()
    assert arguments["key"] == (site.directory / "new.key").read_text()
    assert arguments["second_chain"] == arguments["second_key"] == ""
    second = ("--second-certificate", options[1], "--second-key", options[3])
    run(site, "add", ORG, *options, *second)
    assert asked[1][1]["second_chain"] == arguments["chain"]
    assert asked[1][1]["second_key"] == arguments["key"]
    assert run(site, "add", ORG, *options, *second[:2]).exit_code == 2
    assert not (site.directory / "state").exists()


def test_a_spoilt_file_keeps_nobody_from_going_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.directory / "mailserver.toml"
    path.write_text(path.read_text() + '\n[imap]\nliteral = "pluss"\n')
    assert "did you mean 'plus'?" in run(site, "rollback", ORG).output, "no server runs, so the file is what there is"
    asked: list[str] = []

    def ask(_runtime_dir: Path, request: str, **_arguments: str) -> Answer:
        asked.append(request)
        return Answer(True, (), [])

    monkeypatch.setattr(control, "ask", ask)
    for words in (("rollback", ORG), ("list",), ("history",)):
        done = run(site, *words)
        assert done.exit_code == 0
        assert "the configuration has errors" in done.stderr
    assert asked == ["cert-rollback", "cert-list", "cert-history"]
