"""Make, describe and change the files of a server, with the code of any checkout: for tests of upgrades and downgrades.

    python -m tests.upgrade.state make CHECKOUT DIRECTORY       mail, users, indexes and a state directory
    python -m tests.upgrade.state describe CHECKOUT DIRECTORY   print, as JSON, what clients and the administrator see
    python -m tests.upgrade.state change CHECKOUT DIRECTORY     use the mailboxes and the commands, as people do
    python -m tests.upgrade.state pack DIRECTORY ARCHIVE        put the files into a tar.gz that `unpack` opens

CHECKOUT is a working tree of this project, of any version. Everything is done through the protocols and the
administrator's command, which stay the same. The exceptions, an interrupted COPY and the state of ACME, are made and read
by the checkout's own modules, which are found under each name that they have had: `inside`.

An upgrade: `make` with the older version, `describe` with both; the two outputs are equal. A downgrade: `change` with
the newer version, `describe` with both.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.upgrade.inside import CONFIG, OTHER, USER, digest
from tests.upgrade.server import PASSWORD, PROTOCOLS, TEMPLATE, Client, Server

EXPECTED: Final = "expected.json"
"""The output of `describe` right after `make`."""
ADOPTED: Final = 260
"""Messages of a mailbox that another program filled: more than a block of the index has."""

SETTINGS: Final = """\
[server]
hostname = "mail.example.test"
user = "@USER@"
runtime_dir = "@DIR@/run"
state_dir = "@DIR@/state"
workers = 0

[mail]
root = "@DIR@/mail"

[auth]
backends = ["file:@DIR@/users"]
default_domain = "example.test"

[tls]
default = "mail.example.test"

[[domain]]
name = "example.test"
hosts = ["mail.example.test"]
certificate = "@DIR@/certs/test.pem"
key = "@DIR@/certs/test.key"

[[domain]]
name = "example.org"
hosts = ["mail.example.org"]
""" + "".join(
    f'\n[[listener]]\nprotocol = "{protocol}"\nport = @{protocol.upper()}@\naddresses = ["127.0.0.1"]\n'
    for protocol in PROTOCOLS
)


def message(number: int, words: str = "plain words") -> bytes:
    """A message that differs from all others, with a text to look for."""
    return (
        f"From: =?utf-8?q?J=C3=B6rg?= <joerg{number}@example.org>\r\nTo: anna@example.test\r\n"
        f"Subject: Number {number}\r\nDate: Fri, 21 Nov 1997 09:55:06 -0600\r\nMessage-ID: <{number}@example.org>\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        f"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{words} {number}\r\n"
        "--b\r\nContent-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        f"{base64.b64encode(bytes([number & 255]) * 30).decode()}\r\n--b--\r\n"
    ).encode()


# --- Make


def make(checkout: Path, directory: Path) -> None:
    """Everything that a server of that checkout writes, in a new directory."""
    directory.mkdir(parents=True)
    server = Server(checkout, directory)
    (server.dir / TEMPLATE).write_text(SETTINGS)
    server.write_config()
    (server.dir / "state").mkdir(mode=0o700)
    (server.dir / "certs").mkdir(mode=0o700)
    (server.dir / "mail").mkdir(mode=0o700)
    make_certificate(server.dir / "certs" / "test", "mail.example.test")
    (server.dir / "users").touch(mode=0o600)
    for user in (USER, OTHER):
        server.command("user", "add", user, text=f"{PASSWORD}\n{PASSWORD}\n")
    server.command("ca", "init", "--days", "9131", "--name", "Authority of the test")
    with server:
        fill(server)
        for number in (1, 2):
            add_certificate(server, f"org{number}")
        server.command("cert", "rollback", "mail.example.org")
        with Client(server.ports["imap"]) as client:
            client.imap(f'LOGIN {OTHER} "{PASSWORD}"', status=b"NO")
        with Client(server.ports["pop3"]) as client:
            client.send(b"STLS\r\n")
            client.line()
            client.start_tls()
            client._file = client._socket.makefile("rb")
            for command in (f"USER {OTHER}", f"PASS {PASSWORD}", "QUIT"):
                client.pop3(command)
        server.index_text()
    server.inside("make")
    # Its recovery is for the one that opens the files next.
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(directory, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run"))
        described = describe(checkout, Path(copy))
    (server.dir / EXPECTED).write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def fill(server: Server) -> None:
    """Put in what mail clients and other programs put into mailboxes."""
    server.deliver(USER, OTHER, data=message(1))
    server.deliver(USER, data=message(2, "a herring in the text"))
    with server.imap() as client:
        for name in ("Archive/1997", "Archive/1998", "Sent Again", "&ZeVnLIqe-"):
            client.imap(f'CREATE "{name}"')
            client.imap(f'SUBSCRIBE "{name}"')
        client.imap("CREATE Gone")
        client.imap("SUBSCRIBE Gone")
        client.imap("DELETE Gone")
        client.imap("CREATE Box")
        client.imap('RENAME "Sent Again" "Sent Then"')
        for number in range(10, 22):
            flags = ("(\\Seen)", "(\\Flagged $Forwarded)", "(Red Blue)", "()")[number % 4]
            client.imap(f'APPEND Archive/1997 {flags} "01-Feb-2003 04:05:{number} +0000" ', message(number, "herring"))
        client.imap("SELECT Archive/1997")
        client.imap("UID STORE 1:4 +FLAGS (\\Deleted)")
        client.imap("UID EXPUNGE 2:3")
        client.imap("UID STORE 4 -FLAGS.SILENT (\\Deleted)")
        client.imap("UID COPY 5:7 Archive/1998")
        client.imap("UID MOVE 8 Box")
        client.imap("UID STORE 12 +FLAGS ($Junk)")
        client.imap("SELECT Archive/1998")
        client.imap("UID STORE 1:* -FLAGS (Red)")
        client.imap("UID FETCH 1:* (ENVELOPE BODYSTRUCTURE)")
    server.command("mailbox", "special-use", USER, "Junk=Box")
    adopted = server.dir / "mail" / "example.test" / "anna" / "Maildir" / ".Adopted"
    for name in ("tmp", "new", "cur"):
        (adopted / name).mkdir(mode=0o700, parents=True)
    for number in range(ADOPTED):
        info = ("", ":2,S", ":2,FS", ":2,T")[number % 4]
        path = adopted / ("cur" if info else "new") / f"{1_000_000_000 + number}.M{number}P7.other{info}"
        path.write_bytes(b"Subject: adopted %d\r\n\r\nText of adopted mail\r\n" % number)
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    with server.imap(mailbox="Adopted") as client:
        client.imap("UID STORE 7 +FLAGS (Kept)")


def add_certificate(server: Server, name: str) -> None:
    """Serve mail.example.org with a new one."""
    files = server.dir / "certs" / name
    make_certificate(files, "mail.example.org")
    server.command("cert", "add", "mail.example.org", "--certificate", f"{files}.pem", "--key", f"{files}.key")


def make_certificate(path: Path, host: str) -> None:
    """PATH.pem and PATH.key, for a hundred years, signed by an authority that is thrown away."""
    key, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    Path(f"{path}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(f"{path}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)


# --- Change


def change(checkout: Path, directory: Path) -> None:
    """What people do with it: mail comes and goes, mailboxes are renamed, certificates change."""
    server = Server(checkout, directory)
    server.write_config()
    with server:
        server.deliver(USER, OTHER, data=message(100, "another herring"))
        with server.imap(mailbox="Archive/1997") as client:
            client.imap("UID STORE 1 +FLAGS (\\Answered Green)")
            client.imap("UID STORE 5 +FLAGS (\\Deleted)")
            client.imap("EXPUNGE")
            client.imap("UID COPY 6:7 Box")
            client.imap("UID MOVE 9 Archive/1998")
            client.imap("CREATE Later")
            client.imap("APPEND Later (Red) ", message(101))
            client.imap('RENAME Archive/1998 "Archive/Last year"')
            client.imap("UNSUBSCRIBE Gone")
            client.imap("SUBSCRIBE Later")
            client.imap('DELETE "Sent Then"')
            client.imap("SELECT Adopted")
            client.imap("UID STORE 100:110 +FLAGS (Blue)")
            client.imap("UID MOVE 200 INBOX")
        add_certificate(server, "org3")
        server.command("exposures", "clear", OTHER)
        server.command("user", "password", OTHER, text=f"{PASSWORD}\n{PASSWORD}\n")
        with Client(server.ports["imap"]) as client:
            client.imap(f'LOGIN {USER} "{PASSWORD}"', status=b"NO")
        server.index_text()
    server.inside("change")


# --- Describe


def describe(checkout: Path, directory: Path) -> dict[str, Any]:
    """What clients and the administrator see, and what the log complains of meanwhile."""
    server = Server(checkout, directory)
    server.write_config()
    # Before the server forgets what is too old by now.
    seen: dict[str, Any] = {"known networks": json.loads(server.inside("networks")), "indexed": server.indexed()}
    with server:
        for user in (USER, OTHER):
            with server.imap(user) as client:
                seen[user] = describe_account(client)
        with Client(server.ports["pop3"]) as client:
            client.send(b"STLS\r\n")
            client.line()
            client.start_tls()
            client._file = client._socket.makefile("rb")
            for command in (f"USER {OTHER}", f"PASS {PASSWORD}"):
                client.pop3(command)
            seen["pop3"] = [text(line) for line in client.pop3("UIDL", lines=True)]
            client.pop3("QUIT")
        seen["commands"] = json.loads(server.inside("commands"))
        with Client(server.ports["imaps"], tls=True) as client:
            served = client._socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            seen["certificate"] = hashlib.sha256(served).hexdigest()
    seen["state"] = json.loads(server.inside("describe"))
    seen["complaints"] = server.complaints()
    return seen


def describe_account(client: Client) -> dict[str, Any]:
    """All that IMAP tells, without changing anything."""
    names = [text(line) for line in sorted(client.imap('LIST "" "*" RETURN (SPECIAL-USE CHILDREN)')[:-1])]
    seen: dict[str, Any] = {
        "names": names,
        "subscribed": [text(line) for line in sorted(client.imap('LSUB "" "*"')[:-1])],
        "mailboxes": {},
    }
    for line in names:
        if "\\NonExistent" in line or "\\Noselect" in line:
            continue
        name = line.rpartition(' "/" ')[2]
        opened = [text(each) for each in client.imap(f"EXAMINE {name}")]
        items = "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY.PEEK[])"
        fetched = [text(each) for each in client.imap(f"UID FETCH 1:* {items}")[:-1]]
        searches = {
            query: text(client.imap(f"UID SEARCH {query}")[0])
            for query in ("TEXT herring", "BODY adopted", "SUBJECT number", "KEYWORD Red", "FROM joerg1", "DELETED")
        }
        seen["mailboxes"][name] = {
            "opened": sorted(
                each
                for each in opened
                if not re.search(r" RECENT$|^\* FLAGS|PERMANENTFLAGS|HIGHESTMODSEQ|MAILBOXID|^t ", each)
            ),
            "messages": [each if len(each) < 300 else [each[:300], digest(each)] for each in fetched],
            "searches": searches,
            "status": text(client.imap(f"STATUS {name} (MESSAGES UIDNEXT UNSEEN RECENT)")[0]),
        }
    return seen


def text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


# --- Pack


def pack(directory: Path, archive: Path) -> None:
    """A tar.gz without owners and without what a server makes anew at each start."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz" if archive.suffix == ".xz" else "w:gz") as tar:

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            path = Path(member.name)
            if path.parts[:1] in {("run",), ("server.log",), (CONFIG,)} or path.name.endswith("-shm"):
                return None
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(member.mtime)
            return member

        for each in sorted(directory.iterdir()):
            tar.add(each, each.name, filter=plain)
    archive.write_bytes(packed.getvalue())


def unpack(archive: Path, directory: Path) -> None:
    """What `pack` has put in, with its modes and times."""
    directory.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="tar")
    (directory / "run").mkdir(mode=0o700)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["make", checkout, directory]:
            make(Path(checkout), Path(directory))
        case ["change", checkout, directory]:
            change(Path(checkout), Path(directory))
        case ["describe", checkout, directory]:
            print(json.dumps(describe(Path(checkout), Path(directory)), indent=1, ensure_ascii=False))
        case ["pack", directory, archive]:
            pack(Path(directory), Path(archive))
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main(sys.argv[1:])
