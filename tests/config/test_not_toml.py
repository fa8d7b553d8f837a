"""Files that are no TOML: the line and the cure are told, secrets are not, a dovecot.conf is known as one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mailserver.config.load import parse
from tests.config.test_load import SOUND


def said(text: str | bytes) -> str:
    reading = parse(text if isinstance(text, bytes) else text.encode(), Path("/etc/mailserver/mailserver.toml"))
    assert reading.config is None
    assert len(reading.problems) == 1
    return reading.problems[0].reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[mail]\nroot = /var/mail", 'line 2: root must have its text in quotes: root = "/var/mail"'),
        ("[mail]\nroot = /var/mail  # here", 'line 2: root must have its text in quotes: root = "/var/mail"'),
        (
            "[server]\n\nhostname = mail.example.org\n",
            'line 3: hostname must have its text in quotes: hostname = "mail.example.org"',
        ),
        (
            "[[domain]]\nhosts = mail.example.org",
            'line 2: hosts must have its text in quotes: hosts = ["mail.example.org"]',
        ),
        (
            '[[domain]]\nhosts = [mail.example.org, "b.example.org"]',
            'line 2: hosts must have its text in quotes: hosts = ["mail.example.org", "b.example.org"]',
        ),
        (
            "[[listener]]\naddresses = 127.0.0.1",
            'line 2: addresses must have its text in quotes: addresses = ["127.0.0.1"]',
        ),
        ("[mail]\nutf8_names = yes", "line 2: utf8_names must be true or false: utf8_names = true"),
        ("[mail]\nutf8_names = False", "line 2: utf8_names must be true or false: utf8_names = false"),
        ("[mail]\nmax_message_size = 64M", "line 2: max_message_size must be a number, without quotes or unit"),
        ("[mail]\nmax_message_size = 64 MB", "line 2: max_message_size must be a number, without quotes or unit"),
        ('[mail]\nroot = "/var/mail\n', "line 2: root has text whose closing quote is missing"),
        ("[mail]\nroot =\n", "line 2: root has no value"),
        ("[mail]\nroot : /var/mail\n", "line 2 has no = between root and its value"),
        ('[mail]\nroot "/var/mail"\n', "line 2 has no = between root and its value"),
        ("[mail]\nroot = '/a'\nroot = '/b'", "line 3: root is defined twice in its table"),
        ("[mail]\nroot = '/a'\nroot = '/b'\n", "line 3: root is defined twice in its table"),
        (
            "[mail]\nroot = '/a'\n[auth]\n[mail]  # more\n",
            "line 4: [mail] is defined twice: merge the two tables",
        ),
        (
            "[mail]\nquota_max_mail_size = 64M",
            "line 2: quota_max_mail_size is a setting of Dovecot; here: max_message_size of [mail]",
        ),
        # Who knows whether that is a secret?
        ("[auth]\nbackends = [sql:hunter2]", "line 2: backends must have its text in quotes"),
        ("[auth]\npassword = hunter2", "line 2: password must have its text in quotes"),
        ("password = hunter2", "line 1: password must have its text in quotes"),
    ],
)
def test_the_line_and_the_cure(text: str, reason: str) -> None:
    assert said(text) == f"is not TOML: {reason}"


@pytest.mark.parametrize("text", ["]", "a = 1 b = 2", "[a\n", "x = {", "=", 'a = "\\x"'])
def test_what_is_not_usual_is_told_in_the_parsers_words(text: str) -> None:
    assert said(text).startswith("is not TOML: ")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_with_windows_line_ends(mark: str) -> None:
    assert "line 2: root must have" in said(f"{mark}[mail]\r\nroot = /x\r\n")


@pytest.mark.parametrize(
    "text",
    [
        "protocols = imap pop3\nmail_location = maildir:~/Maildir\n",
        "namespace inbox {\n  inbox = yes\n}\n\nservice lmtp {\n}\n",
        "# nothing\n!include conf.d/*.conf\n",
        "!include_try /usr/share/dovecot/protocols.d/*.protocol\n",
        "dovecot_config_version = 2.4.1\npassdb passwd-file {\n}\n",
    ],
)
def test_a_dovecot_conf_is_known_as_one(text: str) -> None:
    assert said(text).startswith("is a Dovecot configuration")
    assert "docs/from-dovecot.md" in said(text)


@pytest.mark.interop
def test_what_doveconf_prints_and_debians_file_are_known(tmp_path: Path) -> None:
    if shutil.which("doveconf") is None:
        assert not os.environ.get("CI"), "CI has a Dovecot"
        pytest.skip("needs Debian's dovecot-core")
    printed = subprocess.run(["doveconf", "-n"], capture_output=True, check=True).stdout
    assert said(printed).startswith("is a Dovecot configuration")
    assert said(Path("/etc/dovecot/dovecot.conf").read_bytes()).startswith("is a Dovecot configuration")


def test_ours_with_one_mistake_is_not_taken_for_dovecots() -> None:
    assert "line 1 " in said(b"x y\n" + SOUND)
