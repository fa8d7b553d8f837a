"""mbsync, offlineimap, fetchmail, getmail and mutt: each does its main job in both domains, with both kinds of TLS."""

from __future__ import annotations

import imaplib
import mailbox
import shlex
import ssl
import time
from pathlib import Path

import pytest

from tests.interop.conftest import Interop


def direct(interop: Interop, domain: str) -> imaplib.IMAP4_SSL:
    """A look at the account past the client under test."""
    context = ssl.create_default_context(cafile=str(interop.server.ca))
    context.check_hostname = False
    client = imaplib.IMAP4_SSL("127.0.0.1", interop.server.port("imaps"), ssl_context=context)
    client.login(*interop.server.user_of(domain))
    return client


def subjects(interop: Interop, domain: str, folder: str) -> set[str]:
    client = direct(interop, domain)
    client.select(folder, readonly=True)
    found = set()
    for part in client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]:
        if isinstance(part, tuple):
            found.add(part[1].decode().strip().removeprefix("Subject: "))
    client.logout()
    return found


def put(interop: Interop, domain: str, folder: str, subject: str) -> None:
    client = direct(interop, domain)
    text = (
        f"From: a@example.net\r\nSubject: {subject}\r\nMessage-ID: <{time.monotonic_ns()}@example.net>\r\n\r\nBody\r\n"
    )
    assert client.append(folder, None, None, text.encode())[0] == "OK"  # type: ignore[arg-type]
    client.logout()


def home_of(interop: Interop, *words: str) -> Path:
    home = interop.work / "-".join(words).replace(":", "_")
    home.mkdir()
    return home


# Its reading thread waits for TLS 1.3's session tickets with the connection's lock of Python 3.13 in hand, and its
# writing thread for that lock, for ever: with any server, whenever the tickets come alone, as under STARTTLS.
TLS_1_2 = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
MaxProtocol = TLSv1.2
"""


def test_mbsync_both_ways(interop: Interop, domain: str, kind: str, address: str) -> None:
    folder = f"mbsync-{kind}-{'6' if ':' in address else '4'}"
    client = direct(interop, domain)
    client.create(folder)
    client.logout()
    for number in range(3):
        put(interop, domain, folder, f"from the server {number}")
    home = home_of(interop, "mbsync", domain, kind, address)
    user, password = interop.server.user_of(domain)

    def configure(ca: Path) -> None:
        (home / "rc").write_text(
            f"""IMAPAccount there
Host {interop.host(domain)}
Port {interop.server.port("imaps" if kind == "implicit" else "imap")}
User {user}
Pass "{password}"
TLSType {"IMAPS" if kind == "implicit" else "STARTTLS"}
SystemCertificates no
CertificateFile {ca}

IMAPStore far
Account there

MaildirStore near
Path {home}/mail/
Inbox {home}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns "{folder}"
Create Both
Expunge Both
SyncState *
"""
        )

    (home / "mail").mkdir()
    configure(interop.wrong_ca)
    assert interop.run("mbsync", "-c", str(home / "rc"), "all", address=address, home=home, check=False).returncode != 0
    configure(interop.server.ca)
    interop.run("mbsync", "-c", str(home / "rc"), "all", address=address, home=home)
    local = mailbox.Maildir(str(home / "mail" / folder), create=False)
    assert sorted(message["Subject"] for message in local) == [f"from the server {number}" for number in range(3)]

    local.add("From: b@example.net\nSubject: from here\n\nBody\n")
    for key, message in local.items():
        if message["Subject"] == "from the server 1":
            message.add_flag("T")
            local[key] = message
    interop.run("mbsync", "-c", str(home / "rc"), "all", address=address, home=home)
    assert subjects(interop, domain, folder) == {"from the server 0", "from the server 2", "from here"}
    # A further run has nothing to do: nothing is new to either side.
    put(interop, domain, folder, "one more")
    interop.run("mbsync", "-c", str(home / "rc"), "all", address=address, home=home)
    assert len(list(mailbox.Maildir(str(home / "mail" / folder), create=False))) == 4


def test_offlineimap(interop: Interop, domain: str, kind: str, address: str) -> None:
    folder = f"offline-{kind}-{'6' if ':' in address else '4'}"
    client = direct(interop, domain)
    client.create(folder)
    client.logout()
    put(interop, domain, folder, "from the server")
    home = home_of(interop, "offlineimap", domain, kind, address)
    user, password = interop.server.user_of(domain)

    def configure(ca: Path) -> None:
        (home / "rc").write_text(
            f"""[general]
accounts = a
metadata = {home}/state

[Account a]
localrepository = here
remoterepository = there

[Repository here]
type = Maildir
localfolders = {home}/mail

[Repository there]
type = IMAP
remotehost = {interop.host(domain)}
remoteport = {interop.server.port("imaps" if kind == "implicit" else "imap")}
remoteuser = {user}
remotepass = {password}
ssl = {"yes" if kind == "implicit" else "no"}
starttls = {"no" if kind == "implicit" else "yes"}
sslcacertfile = {ca}
usecompression = {"yes" if kind == "implicit" else "no"}
folderfilter = lambda name: name == "{folder}"
"""
        )

    if kind == "implicit":  # under STARTTLS this program verifies no authority at all
        configure(interop.wrong_ca)
        refused = interop.run(
            "offlineimap", "-1", "-o", "-c", str(home / "rc"), "-u", "basic", address=address, home=home, check=False
        )
        assert refused.returncode != 0 or "CERTIFICATE_VERIFY_FAILED" in refused.stdout + refused.stderr
        assert not list((home / "mail").rglob("*offline*/new/*"))
    environment = {}
    if kind == "starttls":
        (home / "openssl.cnf").write_text(TLS_1_2)
        environment["OPENSSL_CONF"] = str(home / "openssl.cnf")
    configure(interop.server.ca)
    command = ["offlineimap", "-1", "-o", "-c", str(home / "rc"), "-u", "basic"]
    interop.run(*command, address=address, home=home, environment=environment)
    local = mailbox.Maildir(str(home / "mail" / folder), create=False)
    assert [message["Subject"] for message in local] == ["from the server"]
    local.add("From: b@example.net\nSubject: from here\n\nBody\n")
    interop.run(*command, address=address, home=home, environment=environment)
    assert subjects(interop, domain, folder) == {"from the server", "from here"}


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_fetchmail(interop: Interop, domain: str, kind: str, address: str, protocol: str) -> None:
    subject = f"fetchmail {protocol} {kind} {address}"
    put(interop, domain, "INBOX", subject)
    home = home_of(interop, "fetchmail", protocol, domain, kind, address)
    user, password = interop.server.user_of(domain)
    number = interop.server.port(protocol + ("s" if kind == "implicit" else ""))
    secure = "ssl sslproto 'TLS1.2+'" if kind == "implicit" else "sslproto 'TLS1.2+'"

    def configure(ca: Path) -> None:
        rc = home / "rc"
        rc.write_text(
            f"poll {interop.host(domain)} protocol {protocol} port {number} timeout 60\n"
            f"user '{user}' password '{password}' {secure} sslcertck sslcertfile '{ca}' fetchall keep\n"
            f"mda \"/bin/sh -c 'cat >> {home}/got'\"\n"
        )
        rc.chmod(0o600)

    configure(interop.wrong_ca)
    refused = interop.run(
        "fetchmail",
        "-f",
        str(home / "rc"),
        "--pidfile",
        str(home / "pid"),
        "--nosyslog",
        address=address,
        home=home,
        check=False,
    )
    assert refused.returncode not in (0, 1)
    assert not (home / "got").exists()
    configure(interop.server.ca)
    interop.run(
        "fetchmail", "-f", str(home / "rc"), "--pidfile", str(home / "pid"), "--nosyslog", address=address, home=home
    )
    assert f"Subject: {subject}" in (home / "got").read_text(errors="replace")


@pytest.mark.parametrize("retriever", ["SimpleIMAPSSLRetriever", "SimplePOP3SSLRetriever"])
def test_getmail(interop: Interop, domain: str, address: str, retriever: str) -> None:
    subject = f"getmail {retriever} {address}"
    put(interop, domain, "INBOX", subject)
    home = home_of(interop, "getmail", retriever, domain, address)
    user, password = interop.server.user_of(domain)

    # The sleep: getmail hangs, or raises, where a child ends before os.fork() has told the parent its number.
    def configure(ca: Path) -> None:
        number = interop.server.port("imaps" if "IMAP" in retriever else "pop3s")
        (home / "getmailrc").write_text(
            f"""[retriever]
type = {retriever}
server = {interop.host(domain)}
port = {number}
username = {user}
password = {password}
ca_certs = {ca}

[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >> {home}/got; sleep 0.1")
allow_root_commands = true

[options]
delete = false
"""
        )

    configure(interop.wrong_ca)
    interop.run("getmail", "--getmaildir", str(home), address=address, home=home, check=False)
    assert not (home / "got").exists()
    configure(interop.server.ca)
    interop.run("getmail", "--getmaildir", str(home), address=address, home=home)
    assert f"Subject: {subject}" in (home / "got").read_text(errors="replace")


def test_mutt_sends_and_deletes(interop: Interop, domain: str, kind: str, address: str) -> None:
    interop.need("mutt")
    interop.need("script")
    home = home_of(interop, "mutt", domain, kind, address)
    user, password = interop.server.user_of(domain)
    folder = f"mutt-{kind}-{'6' if ':' in address else '4'}"
    client = direct(interop, domain)
    client.create(folder)
    client.logout()
    for subject in ("keep me", "delete me"):
        put(interop, domain, folder, subject)
    name = interop.host(domain)
    suffix = "s" if kind == "implicit" else ""
    imap_port = interop.server.port("imap" + suffix)
    smtp_port = interop.server.port("submission" + suffix)

    def configure(ca: Path) -> None:
        (home / "rc").write_text(
            f"""set ssl_ca_certificates_file={ca}
set certificate_file={home}/none
set ssl_starttls=yes
set ssl_force_tls=yes
set imap_user={user}
set imap_deflate={"yes" if kind == "starttls" else "no"}
set imap_pass="{password}"
set smtp_url="smtp{suffix}://{user}@{name}:{smtp_port}"
set smtp_pass="{password}"
set from={user}
set use_envelope_from=yes
set copy=no
set sendmail=/bin/false
set header_cache=
set folder={home}
set sleep_time=0
set confirmappend=no
set delete=yes
set move=no
set mark_old=no
"""
        )

    subject = f"by mutt {kind} {address}"
    send = ["mutt", "-F", str(home / "rc"), "-s", subject, user]
    configure(interop.wrong_ca)
    refused = interop.run(*send, address=address, home=home, data="hello\n", check=False)
    assert refused.returncode != 0
    configure(interop.server.ca)
    interop.run(*send, address=address, home=home, data="hello\n")
    assert subject in subjects(interop, domain, "INBOX")

    keys = "push '<delete-pattern>~s delete<enter><sync-mailbox><quit>'"
    inside = "stty rows 24 cols 80; " + shlex.join(
        ["mutt", "-F", str(home / "rc"), "-f", f"imap{suffix}://{name}:{imap_port}/{folder}", "-e", keys]
    )
    interop.run("timeout", "60", "script", "-qec", inside, "/dev/null", address=address, home=home)
    assert subjects(interop, domain, folder) == {"keep me"}
