"""Debian's Roundcube in a real browser: who writes a message there sees it arrive.

Roundcube logs in anew for each of its pages, so a login that waits makes each page wait.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import sqlite3
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.browser import Browser, until
from tests.interop.conftest import Interop
from tests.interop.recorder import recording
from tests.server import Server, free_ports

CODE = Path("/usr/share/roundcube")
DEFAULTS = Path("/etc/roundcube")
PAGES = Path("/var/lib/roundcube/public_html")
CONFIGURATION = """<?php
$config = [
    'db_dsnw' => 'sqlite:///{directory}/roundcube.sqlite?mode=0600',
    'imap_host' => '{imap}',
    'smtp_host' => '{smtp}',
    'imap_conn_options' => ['ssl' => {tls}],
    'smtp_conn_options' => ['ssl' => {tls}],
    'smtp_user' => '%u',
    'smtp_pass' => '%p',
    'des_key' => '0123456789abcdef01234567',
    'plugins' => [],
    'skin' => 'elastic',
    'enable_spellcheck' => false,
    'log_dir' => '{directory}',
    'temp_dir' => '{directory}/temporary',
];
"""
ROWS = "document.querySelectorAll('#messagelist tbody tr')"


@pytest.fixture(params=["implicit TLS", "STARTTLS"])
def pages(request: pytest.FixtureRequest, interop: Interop, tmp_path: Path) -> Iterator[str]:
    """Where Roundcube is."""
    server = interop.server
    if request.param == "STARTTLS":
        imap, smtp = f"tls://127.0.0.1:{server.port('imap')}", f"tls://127.0.0.1:{server.port('submission')}"
    else:
        imap, smtp = f"ssl://127.0.0.1:{server.port('imaps')}", f"ssl://127.0.0.1:{server.port('submissions')}"
    with roundcube(interop, tmp_path, imap, smtp) as url:
        yield url


@contextlib.contextmanager
def roundcube(interop: Interop, tmp_path: Path, imap: str, smtp: str) -> Iterator[str]:
    """Roundcube under PHP's own web server."""
    for program in ("php", "chromium", "chromedriver"):
        interop.need(program)
    server = interop.server
    (tmp_path / "temporary").mkdir()
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    for name in ("defaults.inc.php", "mimetypes.php"):
        (configuration / name).symlink_to(DEFAULTS / name)
    tls = f"['cafile' => '{server.ca}', 'peer_name' => 'mail.example.test']"
    text = CONFIGURATION.format(directory=tmp_path, imap=imap, smtp=smtp, tls=tls)
    (configuration / "config.inc.php").write_text(text)
    with contextlib.closing(sqlite3.connect(tmp_path / "roundcube.sqlite")) as database:
        database.executescript((CODE / "SQL/sqlite.initial.sql").read_text())
    [port] = free_ports(1)
    # Several workers: a browser opens connections ahead of what it asks for.
    environment = {**os.environ, "ROUNDCUBE_CONFIG_DIR": str(configuration), "PHP_CLI_SERVER_WORKERS": "4"}
    command = ["php", "-S", f"127.0.0.1:{port}", "-t", str(PAGES)]
    with (tmp_path / "php.log").open("wb") as log:
        php = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/"
        until(lambda: _answers(url))
        yield url
    finally:
        # Its workers are of its group.
        os.killpg(php.pid, 15)
        php.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=60) as page:
            return b"rcmloginuser" in page.read()
    except urllib.error.URLError:
        return False


@pytest.mark.slow
def test_write_and_send(interop: Interop, pages: str, tmp_path: Path) -> None:
    """Log in, list, flag, move, write, send, and see it come, while a program at the same address guesses passwords."""
    server = interop.server
    user, password = server.user_of("example.test")
    [port] = free_ports(1)
    before = archived(server, user, password)
    with guesses(server, user), Browser(port, str(tmp_path / "profile")) as browser:
        browser.go(pages)
        browser.type("#rcmloginuser", user)
        browser.type("#rcmloginpwd", password)
        browser.click("#rcmloginsubmit")
        browser.wait_for(f"return {ROWS}.length")
        browser.click("#messagelist tbody tr span.flag")
        browser.wait_for("return document.querySelector('#messagelist tbody tr.flagged') !== null")
        browser.run("rcmail.message_list.select(rcmail.message_list.get_first_row()); rcmail.move_messages('Archive')")
        until(lambda: archived(server, user, password) > before)
        browser.click("a.compose")
        browser.wait_for("return rcmail.env.action == 'compose' && document.querySelector('#composebody') !== null")
        browser.type("ul.recipient-input input", user + ",")
        browser.type("#compose-subject", "from a browser")
        browser.type("#composebody", "one line\n.\nand another\n")
        browser.click("button.send")
        # The list of messages, to which a message that was sent leads back.
        browser.wait_for(f"return Array.from({ROWS}).some(row => row.innerText.includes('from a browser'))")
    with session(server, user, password) as client:
        for mailbox in ("INBOX", "Sent"):
            client.select(mailbox, readonly=True)
            assert client.search(None, "SUBJECT", '"from a browser"')[1][0], f"not in {mailbox}"


@pytest.mark.slow
def test_sort_thread_search_and_quota(interop: Interop, tmp_path: Path) -> None:
    """By the server: a list by subject (SORT), threads (THREAD), a search in that order, and the quota on the page."""
    server = interop.server
    user = [each for each in server.accounts if each.endswith("@example.test")][2]
    users = server.dir / "users"
    users.write_text(re.sub(rf"(?m)^{re.escape(user)}:.*$", r"\g<0> userdb_quota_storage_size=1M", users.read_text()))
    with session(server, user, server.accounts[user]) as client:
        client.create("List")
        client.subscribe("List")
        for number, subject in enumerate(("beta", "alpha", "Re: beta")):
            header = f"Message-ID: <{number}@example.net>\r\n" + (
                "References: <0@example.net>\r\n" if number == 2 else ""
            )
            text = f"From: a@example.net\r\nSubject: {subject}\r\n{header}\r\n" + "x\r\n" * 30_000
            client.append("List", None, None, text.encode())  # type: ignore[arg-type]

    def used() -> re.Match[bytes] | None:
        with session(server, user, server.accounts[user]) as client:
            return re.search(rb"STORAGE (\d+) 1024\b", b" ".join(client.getquotaroot("INBOX")[1][1]))

    found = until(used)
    [port] = free_ports(1)
    shown = f"Array.from({ROWS}).map(row => row.querySelector('.subject a').innerText.trim()).join()"
    with (
        recording(server) as recorder,
        roundcube(interop, tmp_path, f"ssl://127.0.0.1:{recorder.port}", "tls://127.0.0.1:9") as pages,
        Browser(port, str(tmp_path / "profile")) as browser,
    ):
        browser.go(pages)
        browser.type("#rcmloginuser", user)
        browser.type("#rcmloginpwd", server.accounts[user])
        browser.click("#rcmloginsubmit")
        percent = f"{round(int(found[1]) * 100 / 1024)}%"
        browser.wait_for(f"return document.querySelector('#quotadisplay').innerText.includes('{percent}')")
        browser.go(f"{pages}?_task=mail&_mbox=List")
        browser.wait_for(f"return {ROWS}.length == 3")
        browser.run("rcmail.set_list_options(null, 'subject', 'ASC', 0)")
        browser.wait_for(f"return {shown} == 'alpha,beta,Re: beta'")
        assert recorder.commands(r"UID SORT \(SUBJECT\) US-ASCII ALL")
        browser.run("rcmail.set_list_options(null, 'arrival', 'ASC', 1)")
        browser.wait_for(
            f"return {ROWS}.length == 3 && document.querySelector('#messagelist tbody tr.thread') !== null"
        )
        assert recorder.commands("UID THREAD REFS US-ASCII ALL")
        browser.run("rcmail.set_list_options(null, 'subject', 'DESC', 0)")
        browser.wait_for(f"return {shown} == 'Re: beta,beta,alpha'")
        browser.run("document.querySelector('#mailsearchform').value = 'beta'; rcmail.command('search')")
        browser.wait_for(f"return {shown} == 'Re: beta,beta'")
        assert recorder.commands(r"UID SORT \(SUBJECT\) US-ASCII .*HEADER SUBJECT beta")
        assert not recorder.refusals()


@contextlib.contextmanager
def session(server: Server, user: str, password: str) -> Iterator[imaplib.IMAP4]:
    context = ssl.create_default_context(cafile=str(server.ca))
    context.check_hostname = False
    client = imaplib.IMAP4_SSL("127.0.0.1", server.port("imaps"), ssl_context=context, timeout=120)
    try:
        client.login(user, password)
        yield client
    finally:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            client.logout()


def archived(server: Server, user: str, password: str) -> int:
    """Messages in Archive."""
    with session(server, user, password) as client:
        return int(client.select("Archive", readonly=True)[1][0] or b"0")


@contextlib.contextmanager
def guesses(server: Server, user: str) -> Iterator[None]:
    """Another program at Roundcube's address tries one wrong password after another."""
    stopped = threading.Event()

    def guess() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            with contextlib.suppress(OSError, imaplib.IMAP4.error), session(server, user, f"wrong {number}"):
                pass

    threads = [threading.Thread(target=guess, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join(150)
