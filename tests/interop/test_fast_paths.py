"""Mail programs that resynchronize by modseqs, or leave sorting, threading and searching to the server.

A recorder between program and server shows that a program used the extension that its test is about.
"""

from __future__ import annotations

import contextlib
import imaplib
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.interop.conftest import Interop
from tests.interop.recorder import Recorder, recording
from tests.interop.test_mail_programs import direct, home_of, put, subjects

DOMAIN = "example.test"
HOST = "mail.example.test"


@pytest.fixture
def recorder(interop: Interop) -> Iterator[Recorder]:
    with recording(interop.server) as running:
        yield running


@contextlib.contextmanager
def other_session(interop: Interop, folder: str | None = None) -> Iterator[imaplib.IMAP4]:
    """Another program in the account."""
    client = direct(interop, DOMAIN)
    if folder is not None:
        client.select(folder)
    yield client
    client.logout()


def make_folder(interop: Interop, folder: str, *words: str) -> None:
    """A mailbox with a message for each subject."""
    with other_session(interop) as client:
        client.create(folder)
    for word in words:
        put(interop, DOMAIN, folder, word)


@pytest.mark.parametrize("program", ["mutt", "neomutt"])
def test_mutt_resynchronizes_its_header_cache(interop: Interop, recorder: Recorder, program: str) -> None:
    """CONDSTORE and QRESYNC (RFC 7162): it reads again what changed, and acts on it."""
    interop.need(program)
    folder = f"cached-by-{program}"
    make_folder(interop, folder, "one", "two", "three", "four", "five")
    home = home_of(interop, program, "resync")
    (home / "cache").mkdir()
    user, password = interop.server.user_of(DOMAIN)
    (home / "rc").write_text(
        f"""set ssl_ca_certificates_file={interop.server.ca}
set certificate_file={home}/none
set ssl_force_tls=yes
set imap_user={user}
set imap_pass="{password}"
set imap_condstore=yes
set imap_qresync=yes
set imap_deflate=no
set header_cache={home}/cache
set folder={home}
set sleep_time=0
set delete=yes
set move=no
set mark_old=no
"""
    )

    def run(keys: str = "") -> None:
        recorder.clear()
        address = f"imaps://{HOST}:{recorder.port}/{folder}"
        command = [program, "-F", str(home / "rc"), "-f", address, "-e", f"push '{keys}<quit>'"]
        inside = "stty rows 24 cols 80; " + shlex.join(command)
        interop.run("timeout", "60", "script", "-qec", inside, "/dev/null", home=home)
        assert recorder.commands("ENABLE QRESYNC")
        assert not recorder.refusals()

    run()
    assert [command[:11] for command in recorder.commands("FETCH 1:5 ")] == ["FETCH 1:5 ("]
    with other_session(interop, folder) as client:
        client.store("2", "+FLAGS", r"(\Flagged)")
    put(interop, DOMAIN, folder, "six")
    run("<delete-pattern>~F<enter><sync-mailbox>")
    assert recorder.commands(r"UID FETCH 1:5 \(FLAGS\) \(CHANGEDSINCE \d+ VANISHED\)")
    assert [command[:8] for command in recorder.commands(r"FETCH .*HEADER")] == ["FETCH 6 "]
    assert subjects(interop, DOMAIN, folder) == {"one", "three", "four", "five", "six"}

    with other_session(interop, folder) as client:
        client.store("2", "+FLAGS", r"(\Deleted)")
        client.expunge()
    run("<delete-pattern>~s four<enter><sync-mailbox>")
    assert re.search(r"\* VANISHED \(EARLIER\) (?:2:)?3\r\n", recorder.from_server)
    assert subjects(interop, DOMAIN, folder) == {"one", "five", "six"}


def test_interimap_resynchronizes_two_accounts(interop: Interop, recorder: Recorder) -> None:
    """QRESYNC with known UIDs, UNCHANGEDSINCE, LIST-STATUS, MULTIAPPEND; COMPRESS=DEFLATE on the side that is not recorded."""
    interop.need("interimap")
    folder = "interimap"
    make_folder(interop, folder, "one", "two", "three")
    home = home_of(interop, "interimap")
    first, second = [each for each in interop.server.accounts if each.endswith(DOMAIN)][:2]
    sections = [f"database = {home}/state.db\nlist-mailbox = {folder}\n"]
    for name, user, port, compress in (
        ("local", first, recorder.port, "NO"),
        ("remote", second, interop.server.port("imaps"), "YES"),
    ):
        sections.append(
            f"[{name}]\ntype = imaps\nhost = {HOST}\nport = {port}\ncompress = {compress}\nusername = {user}\n"
            f"password = {interop.server.accounts[user]}\nSSL_CAfile = {interop.server.ca}\nSSL_verify = YES\n"
        )
    (home / "config").write_text("".join(sections))
    (home / "config").chmod(0o600)

    def run() -> str:
        recorder.clear()
        done = interop.run("interimap", f"--config={home}/config", home=home)
        assert not recorder.refusals()
        assert "compr." in done.stderr
        return done.stderr

    assert "remote(interimap): Added 3 UID(s) 1:3 -> 1:3" in run()
    with other_session(interop, folder) as client:
        client.store("1", "+FLAGS", r"(\Flagged Work)")
        client.store("2", "+FLAGS", r"(\Deleted)")
        client.expunge()
    put(interop, DOMAIN, folder, "four")
    said = run()
    assert recorder.commands(rf"SELECT {folder} \(QRESYNC \(\d+ \d+ 1:3 \(1:3 1:3\)\)\)")
    assert "* VANISHED (EARLIER) 2\r\n" in recorder.from_server
    assert "remote(interimap): Removed 1 UID(s) 2" in said
    assert r"remote(interimap): Updated flags (Work \Flagged) for UID 1" in said
    assert "remote(interimap): Added 1 UID(s) 4 -> 4" in said
    assert "WARNING" not in said
    assert not recorder.commands("UID STORE"), "what it has written itself came back as a change"
    # Nothing is left to do.
    assert "Updated" not in run()


def test_imapfilter_searches_keywords_on_the_server(interop: Interop, recorder: Recorder) -> None:
    interop.need("imapfilter")
    make_folder(interop, "filtered", "bill one", "bill two", "letter")
    with other_session(interop, "filtered") as client:
        client.store("1", "+FLAGS", "(Paid)")
    home = home_of(interop, "imapfilter")
    user, password = interop.server.user_of(DOMAIN)
    (home / "config.lua").write_text(
        f"""account = IMAP {{ server = '{HOST}', port = {recorder.port}, username = '{user}', password = '{password}', ssl = 'auto' }}
filtered = account.filtered
paid = filtered:has_keyword('Paid') * filtered:contain_subject('bill')
print('paid', #paid, 'unpaid', #(filtered:contain_subject('bill') - paid))
paid:add_flags({{'$Label5'}})
account:create_mailbox('Akten/Öl')
filtered:has_keyword('$Label5'):move_messages(account['Akten/Öl'])
print('moved', account['Akten/Öl']:check_status())
"""
    )
    done = interop.run("imapfilter", "-t", str(interop.server.ca), "-c", str(home / "config.lua"), home=home)
    assert "paid\t1\tunpaid\t1" in done.stdout, done.stdout
    assert "moved\t1\t" in done.stdout, done.stdout
    assert recorder.commands(r"UID SEARCH ALL KEYWORD \$Label5")
    assert not recorder.refusals()
    assert subjects(interop, DOMAIN, "filtered") == {"bill two", "letter"}
