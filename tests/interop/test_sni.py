"""Which clients send the name that they are set to (RFC 6066 3): what docs/tls.md says of each, seen in its ClientHello."""

from __future__ import annotations

import shlex
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.interop.conftest import Interop
from tests.loopback import LoopbackServer

HOST = "mail.example.test"
USER, PASSWORD = "anna@example.test", "secret"
GREETING = {"imap": b"* OK ready\r\n", "pop3": b"+OK ready\r\n", "smtp": b"220 mail.example.test ESMTP\r\n"}
OFFER = {
    "imap": b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n",
    "pop3": b"+OK\r\nSTLS\r\nUSER\r\n.\r\n",
    "smtp": b"250-mail.example.test\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n",
}


class Recorder(LoopbackServer):
    """A server that hears which name is asked for, and ends the handshake at that."""

    def __init__(self, protocol: str, kind: str) -> None:
        super().__init__()
        self.protocol = protocol
        self.kind = kind
        self.heard: list[str | None] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.sni_callback = self._hear  # type: ignore[assignment]

    def _hear(self, _socket: object, name: str | None, _context: object) -> ssl.AlertDescription:
        self.heard.append(name)
        return ssl.AlertDescription.ALERT_DESCRIPTION_ACCESS_DENIED

    def serve(self, connection: socket.socket) -> None:
        if self.kind == "implicit" or self._until_tls(connection):
            self._context.wrap_socket(connection, server_side=True)

    def _until_tls(self, connection: socket.socket) -> bool:
        """A dialogue that offers nothing but STARTTLS."""
        connection.sendall(GREETING[self.protocol])
        with connection.makefile("rb") as lines:
            for line in lines:
                tag, _, rest = line.rstrip().upper().partition(b" ")
                word = rest if self.protocol == "imap" else tag
                done = {"imap": line.split()[0] + b" OK done\r\n", "pop3": b"+OK\r\n", "smtp": b"220 go\r\n"}[
                    self.protocol
                ]
                if word in (b"STARTTLS", b"STLS"):
                    connection.sendall(done)
                    return True
                if word in (b"CAPABILITY", b"CAPA", b"EHLO"):
                    connection.sendall(OFFER[self.protocol] + (done if self.protocol == "imap" else b""))
                else:
                    connection.sendall(done)
        return False


@frozen
class Run:
    """One run of a client that is to connect."""

    port: int
    protocol: str
    kind: str
    home: Path

    @property
    def implicit(self) -> bool:
        return self.kind == "implicit"

    def url(self, more: str = "") -> str:
        return f"{self.protocol}{'s' if self.implicit else ''}://{HOST}:{self.port}{more}"

    def file(self, text: str) -> str:
        path = self.home / "rc"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)


def mutt(run: Run) -> list[str]:
    rc = f"set ssl_starttls=yes\nset ssl_force_tls=yes\nset from={USER}\nset copy=no\nset folder={run.home}\n"
    if run.protocol == "smtp":
        rc += f'set smtp_url="{run.url().replace("://", f"://{USER}@")}"\nset smtp_pass={PASSWORD}\n'
        return ["mutt", "-F", run.file(rc), "-s", "x", USER]
    rc += f"set imap_user={USER}\nset imap_pass={PASSWORD}\n"
    inside = ["mutt", "-F", run.file(rc), "-f", run.url("/INBOX"), "-e", "push '<quit>'"]
    return ["timeout", "20", "script", "-qec", "stty rows 24 cols 80; " + shlex.join(inside), "/dev/null"]


def mbsync(run: Run) -> list[str]:
    mode = "IMAPS" if run.implicit else "STARTTLS"
    rc = (
        f"IMAPStore far\nHost {HOST}\nPort {run.port}\nUser {USER}\nPass {PASSWORD}\nTLSType {mode}\n\n"
        f"MaildirStore near\nInbox {run.home}/INBOX\n\nChannel all\nFar :far:\nNear :near:\n"
    )
    return ["mbsync", "-c", run.file(rc), "all"]


def offlineimap(run: Run) -> list[str]:
    yes, no = ("yes", "no") if run.implicit else ("no", "yes")
    rc = (
        f"[general]\naccounts = a\nmetadata = {run.home}/state\n[Account a]\nlocalrepository = l\nremoterepository = r\n"
        f"[Repository l]\ntype = Maildir\nlocalfolders = {run.home}/mail\n[Repository r]\ntype = IMAP\nremotehost = {HOST}\n"
        f"remoteport = {run.port}\nremoteuser = {USER}\nremotepass = {PASSWORD}\nssl = {yes}\nstarttls = {no}\n"
        "sslcacertfile = /etc/ssl/certs/ca-certificates.crt\n"
    )
    return ["timeout", "60", "offlineimap", "-1", "-o", "-c", run.file(rc), "-u", "basic"]


def fetchmail(run: Run) -> list[str]:
    rc = f"poll {HOST} protocol {run.protocol} port {run.port} timeout 20\nuser '{USER}' password '{PASSWORD}'"
    return [
        "fetchmail",
        "-f",
        run.file(f"{rc} {'ssl' if run.implicit else ''} sslproto 'TLS1.2+' keep\n"),
        "--nosyslog",
    ]


def getmail(run: Run) -> list[str]:
    rc = (
        f"[retriever]\ntype = Simple{run.protocol.upper()}SSLRetriever\nserver = {HOST}\nport = {run.port}\n"
        f"username = {USER}\npassword = {PASSWORD}\n[destination]\ntype = Maildir\npath = {run.home}/mail/\n"
    )
    for part in ("cur", "new", "tmp"):
        (run.home / "mail" / part).mkdir(parents=True)
    return ["getmail", "--getmaildir", str(run.home), "--rcfile", run.file(rc)]


def mpop(run: Run) -> list[str]:
    rc = (
        f"account a\nhost {HOST}\nport {run.port}\nuser {USER}\npassword {PASSWORD}\ntls on\nauth user\n"
        f"tls_starttls {'off' if run.implicit else 'on'}\ndelivery mbox {run.home}/mbox\n"
    )
    return ["mpop", "-C", run.file(rc), "a"]


def msmtp(run: Run) -> list[str]:
    rc = f"account a\nhost {HOST}\nport {run.port}\ntls on\ntls_starttls {'off' if run.implicit else 'on'}\nfrom {USER}\n"
    return ["msmtp", "-C", run.file(rc), "-a", "a", USER]


def gsasl(run: Run) -> list[str]:
    return ["gsasl", f"--{run.protocol}", f"--connect={HOST}:{run.port}", "-a", USER, f"--password={PASSWORD}"]


def curl(run: Run) -> list[str]:
    return ["curl", "-sSk", "--ssl-reqd", "--max-time", "20", "--user", f"{USER}:{PASSWORD}", run.url("/")]


def swaks(run: Run, *more: str) -> list[str]:
    mode = "--tls-on-connect" if run.implicit else "--tls"
    return ["swaks", "--server", HOST, "--port", str(run.port), mode, "--to", USER, "--timeout", "20", *more]


def told_swaks(run: Run) -> list[str]:
    return swaks(run, "--tls-sni", HOST)


def s_client(run: Run) -> list[str]:
    mode = [] if run.implicit else ["-starttls", run.protocol]
    return ["openssl", "s_client", "-connect", f"{HOST}:{run.port}", *mode]


def gnutls_cli(run: Run) -> list[str]:
    mode = [] if run.implicit else ["--starttls-proto", run.protocol]
    return ["gnutls-cli", "--insecure", "--port", str(run.port), *mode, HOST]


def python(run: Run) -> list[str]:
    name = {"imap": "imaplib.IMAP4", "pop3": "poplib.POP3", "smtp": "smtplib.SMTP"}[run.protocol]
    module = name.partition(".")[0]
    if run.implicit:
        done = f"{name}_SSL({HOST!r}, {run.port})"
    else:
        done = f"{name}({HOST!r}, {run.port}).{'stls' if run.protocol == 'pop3' else 'starttls'}()"
    return [sys.executable, "-c", f"import {module}; {done}"]


BOTH = ("implicit", "starttls")
CLIENTS: list[tuple[Callable[[Run], list[str]], tuple[str, ...], tuple[str, ...], str | None]] = [
    (mutt, ("imap", "smtp"), BOTH, HOST),
    (mbsync, ("imap",), BOTH, HOST),
    (offlineimap, ("imap",), BOTH, HOST),
    (fetchmail, ("imap", "pop3"), BOTH, HOST),
    (getmail, ("imap", "pop3"), ("implicit",), HOST),
    (mpop, ("pop3",), BOTH, HOST),
    (msmtp, ("smtp",), BOTH, HOST),
    (gsasl, ("imap", "smtp"), ("starttls",), HOST),
    (curl, ("imap", "pop3", "smtp"), BOTH, HOST),
    (s_client, ("imap", "pop3", "smtp"), BOTH, HOST),
    (gnutls_cli, ("imap", "pop3", "smtp"), BOTH, HOST),
    (python, ("imap", "pop3", "smtp"), BOTH, HOST),
    (swaks, ("smtp",), BOTH, None),
    (told_swaks, ("smtp",), BOTH, HOST),
]
"""How it is run, for what, by which ways to TLS, and the name that it sends."""


def cases() -> Iterator[object]:
    for make, protocols, kinds, name in CLIENTS:
        for protocol in protocols:
            for kind in kinds:
                yield pytest.param(make, protocol, kind, name, id=f"{make.__name__}-{protocol}-{kind}")


@pytest.mark.parametrize(("make", "protocol", "way", "name"), list(cases()))
def test_the_name_that_is_sent(
    interop: Interop, tmp_path: Path, make: Callable[[Run], list[str]], protocol: str, way: str, name: str | None
) -> None:
    with Recorder(protocol, way) as recorder:
        command = make(Run(recorder.port, protocol, way, tmp_path))
        done = interop.run(*command, home=tmp_path, data="", check=False)
    assert recorder.heard, f"no handshake\n{done.stdout}\n{done.stderr}"
    assert set(recorder.heard) == {name}
