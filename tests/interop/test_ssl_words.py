"""Does Dovecot mean by `ssl` and `auth_allow_cleartext` what our table says of them?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mailserver.auth.schemes import schemes
from mailserver.tls.serving import validation
from tests import dovecot
from tests.ssl_words import ELSEWHERE, HERE, TABLE, look


@pytest.mark.parametrize(("ssl", "cleartext"), list(dict.fromkeys(row[:2] for row in TABLE)))
def test_dovecot(ssl: str, *, cleartext: bool) -> None:
    dovecot.need("dovecot packages")
    with tempfile.TemporaryDirectory(prefix="mailserver-ssl-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "mail").mkdir()
        chain, key = validation.make_self_signed(["mail.example.test"])
        (directory / "pair.pem").write_bytes(chain)
        (directory / "pair.key").write_bytes(key)
        there = dovecot.Dovecot(
            directory / "dovecot",
            directory / "mail",
            {},
            certificate=directory / "pair.pem",
            key=directory / "pair.key",
            protocols="imap pop3 submission",
            more="submission_relay_host = 127.0.0.1",
        )
        text = there.config.read_text()
        for old, new in {
            "ssl = yes\n": f"ssl = {ssl}\n",
            "auth_allow_cleartext = yes": f"auth_allow_cleartext = {'yes' if cleartext else 'no'}",
            "= plain login": "= plain login scram-sha-256",
        }.items():
            assert old in text
            text = text.replace(old, new)
        there.config.write_text(text)
        (there.dir / "users").write_text(f"anna@example.test:{schemes.make(b'secret', 'SCRAM-SHA-256')}::::::\n")
        there.own(directory / "mail")
        with there:
            for family in ("imap", "pop3", "submission"):
                for source in (HERE, ELSEWHERE):
                    seen = look(family, there.ports[family], source, "anna@example.test", "secret")
                    assert seen == TABLE[ssl, cleartext, source], (family, source)
