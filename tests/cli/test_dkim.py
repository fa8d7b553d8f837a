"""`mailserver dkim`: keys and their records, from the first to the next."""

from __future__ import annotations

import io
import json
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest
from click.testing import CliRunner

from mailserver.cli import dkim_lookup, main
from mailserver.config import load
from mailserver.dkim import key_file
from mailserver.dkim.key_file import PUBLISHED_FOR, DomainKeys, SigningDomain
from mailserver.dkim.verify import verify
from mailserver.problems import check_dkim_keys
from mailserver.smtp.signing import MessageSigner
from tests.cli.nameserver import NameServer

MESSAGE = b"From: anna@example.test\r\n\r\nHello\r\n"


@pytest.fixture
def configuration(demonstration: Path) -> Iterator[Path]:
    """A demonstration whose first domain has no keys."""
    key_file.path_of(state_of(demonstration), "example.test").unlink(missing_ok=True)
    yield demonstration
    key_file.path_of(state_of(demonstration), "example.test").unlink(missing_ok=True)


def state_of(configuration: Path) -> Path:
    return configuration.parent / "state"


def run(configuration: Path, *words: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, ["dkim", *words, "--config", str(configuration)])
    assert done.exit_code == status, done.output
    return done.output


def document(configuration: Path, *words: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["dkim", *words, "example.test", "--json", "--config", str(configuration)])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(configuration: Path, lines: list[str], *, status: int) -> list[tuple[str, str, str]]:
    with NameServer("example.test", lines) as server:
        words = [
            "dkim",
            "check",
            "example.test",
            "--json",
            "--resolver",
            server.address,
            "--config",
            str(configuration),
        ]
        done = CliRunner().invoke(main, words)
    assert done.exit_code == status, done.output
    return [(row["key_state"], row["state"], row["reason"]) for row in json.loads(done.stdout)]


def signed(configuration: Path) -> bytes:
    reading = key_file.read_signing(state_of(configuration), ["example.test"])
    signer = MessageSigner(reading.domains)
    digest = signer.new_digest()
    assert digest is not None
    digest.update(MESSAGE)
    header = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"
    return signer.sign("example.test", header, digest.digest(), time.time()) + MESSAGE


def test_created_keys_sign_and_their_records_verify(configuration: Path) -> None:
    made = document(configuration, "create")
    assert [(key["algorithm"], key["state"]) for key in made["keys"]] == [("rsa", "signing"), ("ed25519", "signing")]
    path = key_file.path_of(state_of(configuration), "example.test")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    strings = re.findall(r'"([^"]*)"', made["records"][0])
    assert max(map(len, strings)) == 255
    assert "".join(strings) == made["keys"][0]["text"]
    texts = {key["name"]: key["text"] for key in made["keys"]}
    message = signed(configuration)
    assert [each.verdict for each in verify(message, lambda name: [texts[name]], time.time())] == ["pass", "pass"]
    assert dkim.verify(message, dnsfunc=lambda name, **_: texts[name.decode()].encode())
    assert "has keys already" in run(configuration, "create", "example.test", status=1)
    assert check(configuration, made["records"], status=0) == [("signing", "ok", ""), ("signing", "ok", "")]


def test_a_rotation(configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = document(configuration, "create")
    second = document(configuration, "rotate")
    assert [key["state"] for key in second["keys"]] == ["signing", "signing", "waiting", "waiting"]
    assert first["keys"][0]["selector"].encode() in signed(configuration)
    assert "wait already" in run(configuration, "rotate", "example.test", status=1)
    third = document(configuration, "rotate", "--now")
    assert [key["state"] for key in third["keys"]] == ["retired", "retired", "signing", "signing"]
    assert third["keys"][2]["selector"].encode() in signed(configuration)
    assert len(third["records"]) == 4
    keys = key_file.read(state_of(configuration), "example.test")
    assert keys is not None
    assert [key.pem for key in keys.sets[0].keys] == [b"", b""], "retired private keys are gone"
    now = time.time() + PUBLISHED_FOR + 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert document(configuration, "show")["remove"] == [key["name"] for key in first["keys"]]
    assert "; remove:" in run(configuration, "show", "example.test")
    last = document(configuration, "rotate")
    assert [key["state"] for key in last["keys"]] == ["signing", "signing", "waiting", "waiting"]


FAULTS = [
    pytest.param("v=DKIM1;", "v=DKIM2;", "begin with v=DKIM1", id="version"),
    pytest.param("h=sha256; p=", "p=; x=", "is revoked", id="revoked"),
    pytest.param("h=sha256;", "t=y;", "says t=y", id="testing"),
]


@pytest.mark.parametrize(("old", "new", "words"), FAULTS)
def test_a_fault_of_a_record_has_a_sentence(configuration: Path, old: str, new: str, words: str) -> None:
    records = document(configuration, "create")["records"]
    [rsa, ed25519] = check(configuration, [records[0].replace(old, new), records[1]], status=1)
    assert ed25519 == ("signing", "ok", "")
    assert rsa[1] == "different"
    assert words in rsa[2]


def test_missing_and_several_and_other_records(configuration: Path) -> None:
    records = document(configuration, "create")["records"]
    assert [row[1] for row in check(configuration, [], status=1)] == ["missing", "missing"]
    twice = [records[0], records[0].replace("h=sha256; ", ""), records[1]]
    assert "there are 2 TXT records" in check(configuration, twice, status=1)[0][2]
    key_file.path_of(state_of(configuration), "example.test").unlink()
    document(configuration, "create")
    assert "holds another key" in check(configuration, records, status=1)[0][2]


def test_dns_has_the_records(configuration: Path) -> None:
    records = document(configuration, "create")["records"]
    done = CliRunner().invoke(main, ["dns", "records", "example.test", "--config", str(configuration)])
    assert set(records) <= set(done.output.splitlines())


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        pytest.param(b"", "is damaged", id="empty"),
        pytest.param(b"[]", "is damaged", id="no-object"),
        pytest.param(b"[" * 100_000, "is damaged", id="deep"),
        pytest.param(b'{"domain": "other.test", "sets": []}', "of another domain", id="other-domain"),
        pytest.param(b'{"domain": "example.test", "sets": [{}]}', "is damaged", id="no-keys"),
        pytest.param(b" " * 300_000, "is damaged: it is too large", id="large"),
    ],
)
def test_a_damaged_file_is_a_warning_and_signs_nothing(configuration: Path, octets: bytes, reason: str) -> None:
    key_file.path_of(state_of(configuration), "example.test").write_bytes(octets)
    reading = key_file.read_signing(state_of(configuration), ["example.test", "example.org"])
    assert [each.domain for each in reading.domains] == ["example.org"], "another domain is signed"
    config = load.load(configuration)[0]
    assert config is not None
    [problem] = check_dkim_keys(config)
    assert problem.warning
    assert reason in str(problem)
    assert reason in run(configuration, "show", "example.test", status=1)


def test_damaged_keys_and_open_files_are_seen(configuration: Path) -> None:
    run(configuration, "create", "example.test")
    path = key_file.path_of(state_of(configuration), "example.test")
    config = load.load(configuration)[0]
    assert config is not None
    assert check_dkim_keys(config) == []
    path.chmod(0o644)
    assert "can be read by other users" in str(check_dkim_keys(config)[0])
    assert "can be read by other users" in run(configuration, "show", "example.test")
    path.chmod(0o600)
    path.write_text(path.read_text().replace("PRIVATE", "PUBLIC"))
    assert "leaves its mail unsigned" in str(check_dkim_keys(config)[0])


@pytest.mark.parametrize("selector", ["", "A", "a.b", "a" * 41, "../x", "-a"])
def test_a_bad_selector(selector: str) -> None:
    with pytest.raises(key_file.CannotChange):
        DomainKeys("example.test", ()).with_set(selector, 0)


def test_the_look_up_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with NameServer("example.test", ['a 60 IN TXT "one" "two"']) as server:
        question = {"names": ["a.example.test.", "b.example.test."], "resolver": server.address}
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(question)))
        monkeypatch.setattr(sys, "stdout", output)
        dkim_lookup.main()
        server.failing.add("TXT")
        assert dkim_lookup.look_up(["a.example.test."], server.address) == {"a.example.test.": None}
    assert json.loads(output.getvalue()) == {"a.example.test.": ["onetwo"], "b.example.test.": []}


def test_signing_domains_do_not_show_keys(configuration: Path) -> None:
    run(configuration, "create", "example.test")
    reading = key_file.read_signing(state_of(configuration), ["example.test"])
    assert isinstance(reading.domains[0], SigningDomain)
    assert "PRIVATE" not in repr(reading)
