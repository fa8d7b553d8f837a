"""What a user enters, and the code that leads to the profile."""

from __future__ import annotations

from pathlib import Path

import pytest
import segno
from click.testing import CliRunner, Result

from mailserver.cli import main


def settings(config: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["client-settings", *words, "--config", str(config)])


def test_settings(demonstration: Path) -> None:
    done = settings(demonstration, "anna@example.org")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()]
    for row in (
        ["IMAP", "mail.example.org", "21993", "SSL/TLS"],
        ["IMAP", "mail.example.org", "21143", "STARTTLS"],
        ["POP3", "mail.example.org", "21995", "SSL/TLS"],
        ["SMTP", "mail.example.org", "21465", "SSL/TLS"],
        ["SMTP", "mail.example.org", "21587", "STARTTLS"],
    ):
        assert row in rows
    assert 'set folder = "imaps://anna%40example.org@mail.example.org:21993/"' in done.output
    link = "https://mail.example.org:21443/profile.mobileconfig?emailaddress=anna@example.org"
    assert f"    {link}\n" in done.output
    # The code is that of the link: a light module is a block, as on a terminal of light letters.
    code = [line for line in done.output.splitlines() if line and set(line) <= set("█▀▄ ")]
    matrix = [list(row) for row in segno.make(link, error="m").matrix_iter(border=4)]
    for at, line in enumerate(code):
        for column, letter in enumerate(line.ljust(len(matrix[0]))):
            upper, lower = matrix[2 * at][column], matrix[2 * at + 1][column] if 2 * at + 1 < len(matrix) else 1
            assert letter == {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}[upper, lower]
    assert len(code) == (len(matrix) + 1) // 2


def test_without_https_there_is_no_link(tmp_path: Path, demonstration: Path) -> None:
    text = demonstration.read_text().replace('protocol = "https"', 'protocol = "http"')
    (tmp_path / "mailserver.toml").write_text(text)
    done = settings(tmp_path / "mailserver.toml", "anna@example.org")
    assert done.exit_code == 0
    assert "no listener of protocol https" in done.output
    assert "█" not in done.output


def test_where_clients_must_show_certificates_the_link_leads_to_a_site(tmp_path: Path, demonstration: Path) -> None:
    line = 'name = "example.org"\n'
    asking = f'{line}client_certificates = "required"\nclient_ca = "{demonstration.parent / "ca.pem"}"\n'
    (tmp_path / "mailserver.toml").write_text(demonstration.read_text().replace(line, asking))
    done = settings(tmp_path / "mailserver.toml", "anna@example.org", "--no-qr")
    assert "https://autoconfig.example.org:21443/profile.mobileconfig?emailaddress=anna@example.org" in done.output


def test_a_name_without_a_domain_has_the_default_one(demonstration: Path) -> None:
    assert "anna@example.test" in settings(demonstration, "anna", "--no-qr").output
    assert "█" not in settings(demonstration, "anna", "--no-qr").output


@pytest.mark.parametrize("user", ["anna@example.net", "a b", "@example.test", "anna@"])
def test_who_has_none(demonstration: Path, user: str) -> None:
    done = settings(demonstration, user)
    assert (done.exit_code, done.output.startswith("Error: ")) == (1, True)
