"""DKIM signatures of submitted mail, verified by OpenDKIM as it arrives at the next hop and in a mailbox."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

from mailserver.dkim.key_file import SigningDomain
from mailserver.dkim.keys import public_record, record_name
from mailserver.smtp.signing import MessageSigner
from tests.dkim.samples import DOMAIN, keys
from tests.smtp.test_signing import BERT, ELSEWHERE, MESSAGES, send
from tests.smtp.world import HEADER, FakeHop, World

FITTING = [each for each in MESSAGES if each.id != "header-in-a-file"]
"""OpenDKIM's test mode reads lines of at most 64 KiB."""
ALGORITHMS = ["rsa-sha256", "ed25519-sha256"]


@pytest.fixture
def results(tmp_path: Path) -> Verifier:
    return Verifier(tmp_path)


class Verifier:
    """OpenDKIM in its test mode, with our public keys instead of the DNS."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("opendkim") is None:
            if os.environ.get("CI"):
                pytest.fail("opendkim is not installed")
            pytest.skip("opendkim is not installed")
        self._message = directory / "message.eml"
        self._configuration = directory / "opendkim.conf"
        published = directory / "keys"
        published.write_text(
            "".join(f"{record_name(key.selector, DOMAIN).rstrip('.')} {public_record(key)}\n" for key in keys())
        )
        self._configuration.write_text(f"Mode v\nStrictTestMode yes\nMaximumHeaders 0\nTestPublicKeys {published}\n")

    def __call__(self, message: bytes) -> list[tuple[str, str]]:
        """Algorithm and result of each signature."""
        self._message.write_bytes(message)
        command = ["opendkim", "-x", str(self._configuration), "-vv", "-t", str(self._message)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        found = re.findall(r"^\tdkim=(\w+)\b.*? header\.a=([\w-]+)", done.stdout, re.MULTILINE)
        assert found, done.stdout + done.stderr
        return [(algorithm, result) for result, algorithm in found]


def signing(directory: Path) -> World:
    world = World(directory, FakeHop())
    signer = MessageSigner([SigningDomain(DOMAIN, keys())])
    world.submission = attrs.evolve(world.submission, signer=signer)
    return world


@pytest.mark.parametrize("message", FITTING)
def test_both_signatures_hold_at_the_next_hop_and_in_a_mailbox(
    message: bytes, results: Verifier, tmp_path: Path
) -> None:
    world = signing(tmp_path)
    assert send(world.log_in(), message, ELSEWHERE, BERT).startswith(b"250 ")
    assert world.hop is not None
    for arrived in (*world.hop.messages, *world.kept("bert@example.org")):
        assert results(arrived) == [(algorithm, "pass") for algorithm in ALGORITHMS]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"Hello", b"Hallo", id="body"),
        pytest.param(b"\r\nHello", b"\r\n\r\nHello", id="line-before-the-body"),
        pytest.param(b"From: ", b"From: x@example.net\r\nFrom: ", id="second-author"),
        pytest.param(b"\r\nHello", b"Reply-To: x@example.net\r\n\r\nHello", id="field-that-was-absent"),
    ],
)
def test_a_changed_message_fails(old: bytes, new: bytes, results: Verifier, tmp_path: Path) -> None:
    world = signing(tmp_path)
    assert send(world.log_in(), HEADER + b"\r\nHello\r\n", ELSEWHERE).startswith(b"250 ")
    assert world.hop is not None
    [arrived] = world.hop.messages
    assert arrived.count(old) == 1
    assert results(arrived.replace(old, new)) == [(algorithm, "fail") for algorithm in ALGORITHMS]
