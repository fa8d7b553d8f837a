"""`mailserver dns`: what is printed is a zone; published as it stands it is found whole, and each fault is told."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.zone
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailserver.cli import main
from tests.cli.nameserver import NameServer


def records(config: Path, domain: str = "example.test") -> list[str]:
    done = CliRunner().invoke(main, ["dns", "records", domain, "--config", str(config)])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def check(config: Path, server: NameServer) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """Exit status, and the findings by name and type."""
    command = ["dns", "check", "example.test", "--resolver", server.address, "--json", "--config", str(config)]
    done = CliRunner().invoke(main, command)
    findings = json.loads(done.output)
    return done.exit_code, {(finding["name"], finding["kind"]): finding for finding in findings}


@pytest.fixture
def server(demonstration: Path) -> Iterator[NameServer]:
    lines = [
        *records(demonstration, "Example.test."),
        "mail.example.test. 60 IN A 192.0.2.1",
        "mail.example.test. 60 IN AAAA 2001:db8::1",
    ]
    with NameServer("example.test", lines) as server:
        yield server


def test_the_records_are_a_zone(demonstration: Path) -> None:
    lines = ["$ORIGIN example.test.", "@ 60 IN SOA ns. root. 1 60 60 60 60", "@ 60 IN NS ns.", *records(demonstration)]
    zone = dns.zone.from_text("\n".join(lines) + "\n")
    assert str(zone.get_rdataset("@", "MX")[0]) == "10 mail"
    assert str(zone.get_rdataset("_imaps._tcp", "SRV")[0]) == "0 1 21993 mail"
    assert str(zone.get_rdataset("_submissions._tcp", "SRV")[0]) == "0 1 21465 mail"
    assert str(zone.get_rdataset("_imap._tcp", "SRV")[0]) == "10 1 21143 mail"
    certificate = x509.load_pem_x509_certificate(
        (demonstration.parent / "certs" / "mail.example.test.pem").read_bytes()
    )
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert str(zone.get_rdataset("_21993._tcp.mail", "TLSA")[0]) == f"3 1 1 {hashlib.sha256(spki).hexdigest()}"
    assert {str(name) for name in zone.nodes} >= {
        "_dmarc",
        "_mta-sts",
        "_smtp._tls",
        "autoconfig",
        "autodiscover",
        "mta-sts",
    }


def test_published_as_they_stand_nothing_is_wrong(demonstration: Path, server: NameServer) -> None:
    status, findings = check(demonstration, server)
    assert {key for key, finding in findings.items() if finding["state"] != "ok"} == set()
    assert status == 0
    assert len(findings) >= 20


@pytest.mark.parametrize(
    ("old", "new", "key", "state"),
    [
        ("IN MX 10 mail", "IN MX 20 mail", ("example.test.", "MX"), "different"),
        ("", "example.test. 60 IN MX 5 old.example.test.", ("example.test.", "MX"), "different"),
        ("example.test. 3600 IN MX", None, ("example.test.", "MX"), "missing"),
        ("SRV 0 1 21993", "SRV 0 1 993", ("_imaps._tcp.example.test.", "SRV"), "different"),
        ("_submissions._tcp", None, ("_submissions._tcp.example.test.", "SRV"), "missing"),
        ("v=STSv1; id=", "v=STSv1; id=0", ("_mta-sts.example.test.", "TXT"), "different"),
        ("v=spf1", "v=spf2", ("example.test.", "TXT"), "missing"),
        ("", 'example.test. 60 IN TXT "v=spf1 -all"', ("example.test.", "TXT"), "different"),
        ("_dmarc", None, ("_dmarc.example.test.", "TXT"), "missing"),
        ("_21993._tcp.mail.example.test. 3600 IN TLSA 3 1 1 ", "_21993._tcp.mail.example.test. 60 IN TLSA 3 1 1 " + "00" * 32 + " ;",
         ("_21993._tcp.mail.example.test.", "TLSA"), "different"),
        ("_21465._tcp", None, ("_21465._tcp.mail.example.test.", "TLSA"), "missing"),
        ("autoconfig.example.test. 3600 IN CNAME mail.example.test.", "autoconfig.example.test. 60 IN A 192.0.2.9",
         ("autoconfig.example.test.", "CNAME"), "different"),
        ("mta-sts.example.test. 3600", None, ("mta-sts.example.test.", "CNAME"), "missing"),
    ],
)  # fmt: skip
def test_each_fault_is_told(
    demonstration: Path, server: NameServer, old: str, new: str | None, key: tuple[str, str], state: str
) -> None:
    if not old:
        assert new is not None
        server.lines.append(new)
    elif new is None:
        kept = [line for line in server.lines if not line.startswith(old)]
        assert len(kept) == len(server.lines) - 1
        server.lines[:] = kept
    else:
        changed = [line.replace(old, new) for line in server.lines]
        assert changed != server.lines
        server.lines[:] = changed
    status, findings = check(demonstration, server)
    assert {each: finding["state"] for each, finding in findings.items() if finding["state"] != "ok"} == {key: state}
    assert status == 1


@pytest.mark.parametrize(
    "line",
    [
        'example.test. 60 IN TXT "verification=of-something-else"',
        "_21993._tcp.mail.example.test. 60 IN TLSA 3 1 1 " + "ab" * 32,
        'example.test. 60 IN CAA 0 issue "letsencrypt.org"',
    ],
)
def test_what_does_no_harm_is_no_fault(demonstration: Path, server: NameServer, line: str) -> None:
    server.lines.append(line)
    assert check(demonstration, server)[0] == 0


def test_addresses_of_its_own_are_as_good_as_an_alias(demonstration: Path, server: NameServer) -> None:
    server.lines[:] = [line for line in server.lines if not line.startswith("autoconfig.")]
    server.lines += ["autoconfig.example.test. 60 IN A 192.0.2.1", "autoconfig.example.test. 60 IN AAAA 2001:db8::1"]
    assert check(demonstration, server)[0] == 0


def test_no_answer_is_told_as_such(demonstration: Path, server: NameServer) -> None:
    server.failing = {"SRV"}
    status, findings = check(demonstration, server)
    assert status == 1
    assert {finding["state"] for (_name, kind), finding in findings.items() if kind == "SRV"} == {"unanswered"}
    server.failing = {"A", "AAAA"}
    command = ["dns", "check", "example.test", "--resolver", server.address, "--config", str(demonstration)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert done.output.startswith("Error: the resolver does not answer (")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["records", "exampel.test"], "did you mean example.test?"),
        (["check", "example.test", "--resolver", "no address"], "no resolver at no address"),
        (["check", "example.test", "--resolver", "127.0.0.1:x"], "no resolver at 127.0.0.1:x"),
    ],
)
def test_what_is_entered_wrongly(demonstration: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["dns", *words, "--config", str(demonstration)])
    assert done.exit_code == 1
    assert said in done.output


def test_both_keys_of_a_domain_are_told(tmp_path: Path, demonstration: Path) -> None:
    second = demonstration.parent / "certs" / "mail.example.org.pem"
    line = 'name = "example.test"\n'
    keys = f'{line}second_certificate = "{second}"\nsecond_key = "{second.with_suffix(".key")}"\n'
    (tmp_path / "mailserver.toml").write_text(demonstration.read_text().replace(line, keys))
    lines = [line for line in records(tmp_path / "mailserver.toml") if line.startswith("_21993._tcp.mail")]
    digests = [
        hashlib.sha256(
            x509.load_pem_x509_certificate((second.parent / f"mail.{domain}.pem").read_bytes())
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).hexdigest()
        for domain in ("example.test", "example.org")
    ]
    assert [line.rpartition(" ")[2] for line in lines] == digests


def test_a_domain_without_services_says_so(tmp_path: Path, demonstration: Path) -> None:
    """RFC 6186 3.4: a target of "." for what is not there; its absence is as good."""
    text = demonstration.read_text().replace('protocol = "pop3s"', 'protocol = "lmtp"')
    (tmp_path / "mailserver.toml").write_text(text)
    lines = records(tmp_path / "mailserver.toml")
    assert "_pop3s._tcp.example.test. 3600 IN SRV 0 0 0 ." in lines
    present = [line for line in lines if "_pop3s._tcp" not in line] + ["mail.example.test. 60 IN A 192.0.2.1"]
    with NameServer("example.test", present) as server:
        assert check(tmp_path / "mailserver.toml", server)[0] == 0


@pytest.mark.parametrize(
    ("addresses", "state", "expected"),
    [
        ('["127.0.0.1", "::1"]', "ok", ["any address"]),
        ('["0.0.0.0", "::"]', "ok", ["any address"]),
        ('["10.0.0.5", "fd00::5"]', "ok", ["any address"]),
        ('["192.0.2.4"]', "different", ["192.0.2.4"]),
        ('["192.0.2.8", "2001:db8:0:0::8", "192.0.2.4"]', "ok", ["192.0.2.8", "2001:db8::8", "192.0.2.4"]),
    ],
)
def test_addresses_are_compared_with_those_listened_on(
    demonstration: Path, tmp_path: Path, addresses: str, state: str, expected: list[str]
) -> None:
    """Where they are public ones; of others it is not known how the Internet sees them."""
    config = tmp_path / "mailserver.toml"
    text = demonstration.read_text()
    config.write_text(re.sub(r"(?m)^addresses = .*$", f"addresses = {addresses}", text))
    lines = ["mail.example.test. 60 IN A 192.0.2.8", "mail.example.test. 60 IN AAAA 2001:db8::8"]
    with NameServer("example.test", lines) as server:
        finding = check(config, server)[1]["mail.example.test.", "A/AAAA"]
    assert (finding["state"], finding["expected"]) == (state, expected)
    assert finding["found"] == ["192.0.2.8", "2001:db8::8"]


def test_the_reports_of_dmarc_go_to_an_address_that_somebody_reads(demonstration: Path) -> None:
    """Mail to postmaster is taken in every domain; where nobody is named who gets it, that is said."""
    lines = records(demonstration)
    (dmarc,) = [line for line in lines if line.startswith("_dmarc")]
    assert 'rua=mailto:postmaster@example.test"' in dmarc
    note = "set [mail] postmaster to the user who reads the reports sent to postmaster@example.test"
    text = demonstration.read_text()
    named = "postmaster = " in text
    assert any(note in line for line in lines) is not named
    other = demonstration.with_name("named.toml")
    other.write_text(text.replace("[mail]\n", "[mail]\n" + ("" if named else 'postmaster = "anna@example.test"\n')))
    assert not any(note in line for line in records(other))
