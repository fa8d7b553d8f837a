"""Dovecot's words: each has its row in the documentation, and is refused with ours when it is typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args, get_type_hints

import attrs
import pytest

from mailserver.config import dovecot_mail, model
from mailserver.config.dovecot import HERE, table
from mailserver.config.dovecot_mail import MAIL
from mailserver.config.load import parse
from mailserver.config.schema import keys_of
from tests.config.test_load import SOUND

PAGE = Path(__file__).parents[2] / "docs" / "tls-from-dovecot.md"

ALL = [
    "ssl",
    "ssl_server_cert_file",
    "ssl_server_key_file",
    "ssl_server_alt_cert_file",
    "ssl_server_alt_key_file",
    "ssl_server_key_password",
    "ssl_server_ca_file",
    "ssl_server_require_crl",
    "ssl_server_request_client_cert",
    "auth_ssl_require_client_cert",
    "auth_ssl_username_from_cert",
    "ssl_server_cert_username_field",
    "ssl_peer_certificate_fingerprint_hash",
    "ssl_min_protocol",
    "ssl_cipher_list",
    "ssl_cipher_suites",
    "ssl_curve_list",
    "ssl_server_prefer_ciphers",
    "ssl_server_dh_file",
    "ssl_options",
    "ssl_crypto_device",
    "ssl_client_ca_file",
    "ssl_client_ca_dir",
    "ssl_client_cert_file",
    "ssl_client_key_file",
    "ssl_client_key_password",
    "ssl_client_require_valid_cert",
    "ssl_server",
    "ssl_client",
    "local_name",
    "local",
    "remote",
    "protocol",
    "inet_listener_ssl",
    "doveadm_ssl",
    "imapc_ssl",
    "pop3c_ssl",
    "submission_relay_ssl",
    "submission_relay_ssl_verify",
    "submission_ssl",
    "ldap_starttls",
    "mysql_ssl",
    "cassandra_ssl",
    "auth_allow_cleartext",
    "disable_plaintext_auth",
    "login_trusted_networks",
    "haproxy_trusted_networks",
    "haproxy_timeout",
    "verbose_ssl",
    "ssl_cert",
    "ssl_key",
]
"""Every setting and block of TLS in Dovecot 2.4 (data/settings.js), and those of 2.3 that people still type."""


def test_the_page_has_them_all() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(ALL) - {name for name, _words in rows}
    assert table() in PAGE.read_text(encoding="utf-8")


def test_all_that_a_real_dovecot_has_are_there(tmp_path: Path) -> None:
    doveconf = shutil.which("doveconf")
    if doveconf is None:
        assert not os.environ.get("CI"), "CI has a Dovecot"
        pytest.skip("needs Debian's dovecot-core")
    (tmp_path / "dovecot.conf").write_text("dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n")
    done = subprocess.run(
        [doveconf, "-c", tmp_path / "dovecot.conf", "-a"], capture_output=True, text=True, check=True, timeout=60
    )
    found = set(re.findall(r"^\s*(\w*ssl\w*) =", done.stdout, re.MULTILINE))
    assert {"ssl_server_require_crl", "auth_ssl_require_client_cert"} <= found
    assert not found - HERE.keys()


def test_the_keys_that_it_names_exist() -> None:
    tables = {"[tls]": model.Tls, "[[domain]]": model.Domain, "[[listener]]": model.Listener}
    tables |= {"[submission.relay]": model.Relay, "[limits]": model.Limits, "[auth]": model.Auth}
    known = {name for each in tables.values() for name in keys_of(each)}
    named = [(key, words) for words in HERE.values() for key in re.findall(r"\b(\w+)(?: = \S+)? of (?:a )?\[", words)]
    assert len(named) > 10
    for key, words in named:
        assert key in known, words


HEADERS = (b"", b"[tls]\n", b"[[domain]]\n")


# Without a header `protocol` is a key of [[listener]], which SOUND ends with.
@pytest.mark.parametrize(
    ("header", "name"), [(header, name) for header in HEADERS for name in ALL if header or name != "protocol"]
)
def test_it_is_refused_with_our_word(tmp_path: Path, name: str, header: bytes) -> None:
    text = name.encode() + b' = "yes"\n'
    octets = text + SOUND if not header else SOUND + header + text
    told = [problem for problem in parse(octets, tmp_path / "a.toml").problems if problem.place.endswith(name)]
    assert [problem.reason for problem in told] == [f"is a setting of Dovecot; here: {HERE[name]}"]


def test_the_page_of_mail_has_the_table() -> None:
    page = PAGE.parent / "from-dovecot.md"
    assert dovecot_mail.table() in page.read_text(encoding="utf-8")


def test_words_of_mail_are_keys_of_dovecots_and_not_ours_and_name_ours() -> None:
    tables = keys_of(model.Config)
    hints = get_type_hints(model.Config)
    known: dict[str, set[str]] = {}
    for name, attribute in tables.items():
        parts = [part for part in (hints[attribute.name], *get_args(hints[attribute.name])) if attrs.has(part)]
        known[name] = set(keys_of(parts[0]))
    known["submission.relay"] = set(keys_of(model.Relay))
    assert not set().union(*known.values()) & MAIL.keys()
    assert not MAIL.keys() & HERE.keys()
    for words in MAIL.values():
        for named in re.findall(r"((?:\w+(?:, | and | or )?)+) of \[(\w+(?:\.\w+)?)\]", words):
            keys = [key for key in re.split(r", | and | or ", named[0]) if "_" in key or key in known[named[1]]]
            assert keys, words
            assert set(keys) <= known[named[1]], words


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("quota_storage_size = 10\n", "quota_storage_size"),
        ('[mail]\nquota_storage_size = "1G"\n', "[mail] quota_storage_size"),
    ],
)
def test_a_quota_has_another_name(tmp_path: Path, text: str, place: str) -> None:
    octets = text.encode() + SOUND if not text.startswith("[mail]") else SOUND.replace(b"[mail]\n", text.encode())
    told = [problem for problem in parse(octets, tmp_path / "a.toml").problems if problem.place == place]
    assert len(told) == 1
    assert "storage of [quota]" in told[0].reason
