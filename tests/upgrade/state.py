"""Make, describe and change the files of a server, with the code of any checkout: for tests of upgrades and downgrades.

    python tests/upgrade/state.py make CHECKOUT DIRECTORY       mail, users, indexes and a state directory
    python tests/upgrade/state.py describe CHECKOUT DIRECTORY   print, as JSON, what clients and the administrator see
    python tests/upgrade/state.py change CHECKOUT DIRECTORY     use the mailboxes and the commands, as people do
    python tests/upgrade/state.py pack DIRECTORY ARCHIVE        put the files into a tar.gz that `unpack` opens

CHECKOUT is a working tree of this project, of any version. Everything is done through the protocols and the
administrator's command, which stay the same. The exceptions, an interrupted COPY and the state of ACME, are made and read
by the checkout's own modules, which are found under each name that they have had.

An upgrade: `make` with the older version, `describe` with both; the two outputs are equal. A downgrade: `change` with
the newer version, `describe` with both.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import importlib
import io
import ipaddress
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import apsw
import click.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USER: Final = "anna@example.test"
OTHER: Final = "bert@example.test"
PASSWORD: Final = "correct horse"
PROTOCOLS: Final = ("imap", "imaps", "pop3", "submission", "lmtp")
CONFIG: Final = "mailserver.toml"
TEMPLATE: Final = "mailserver.toml.in"
"""The configuration with @DIR@, @USER@ and a port's @NAME@ in it."""
EXPECTED: Final = "expected.json"
"""The output of `describe` right after `make`."""
INDEXED: Final = ("INBOX", "Archive/1997", "Adopted")
"""Mailboxes whose text is indexed."""
SEARCHED: Final = 2000
"""Messages that searches must have read for a mailbox to be indexed."""
HANG: Final = 60.0
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


class Client:
    """A client of lines."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=HANG)
        if tls:
            self.start_tls()
        self._file = self._socket.makefile("rb")
        self.greeting = self._file.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()
        self._socket.close()

    def start_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket = context.wrap_socket(self._socket, server_hostname="mail.example.test")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), f"the server has closed the connection: {line!r}"
        return line[:-2]

    def imap(self, command: str | bytes, *literals: bytes, status: bytes = b"OK") -> list[bytes]:
        """The untagged responses, each with its literals; the last one is the tagged response."""
        text = command.encode() if isinstance(command, str) else command
        pieces = [text]
        for literal in literals:
            pieces[-1] += b"{%d+}\r\n" % len(literal) + literal
        self.send(b"t " + b"".join(pieces) + b"\r\n")
        responses = []
        while True:
            response = self.line()
            while found := re.search(rb"\{(\d+)\}$", response):
                response += b"\n" + self._file.read(int(found[1])) + b"\n" + self.line()
            responses.append(response)
            if response.startswith(b"t "):
                assert response.startswith(b"t " + status), (text, response)
                return responses

    def pop3(self, command: str, *, lines: bool = False) -> list[bytes]:
        self.send(command.encode() + b"\r\n")
        answer = [self.line()]
        assert answer[0].startswith(b"+OK"), (command, answer)
        while lines and (line := self.line()) != b".":
            answer.append(line)
        return answer

    def smtp(self, command: bytes) -> bytes:
        self.send(command + b"\r\n")
        while (line := self.line())[3:4] == b"-":
            pass
        assert line[:1] in b"23", (command, line)
        return line


class Server:
    """A server on the files of a directory, with the code of a checkout."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self.checkout, self.dir = checkout.resolve(), directory.resolve()
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self.dir / "server.log"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.checkout), "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1"}

    def write_config(self) -> None:
        """Fill the template in, with free ports."""
        with contextlib.ExitStack() as opened:
            for protocol in PROTOCOLS:
                probe = opened.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                self.ports[protocol] = probe.getsockname()[1]
        text = (self.dir / TEMPLATE).read_text()
        text = text.replace("@DIR@", str(self.dir)).replace("@USER@", pwd.getpwuid(os.getuid()).pw_name)
        for protocol, port in self.ports.items():
            text = text.replace(f"@{protocol.upper()}@", str(port))
        (self.dir / CONFIG).write_text(text)

    def command(self, *arguments: str, text: str = "") -> str:
        """The administrator's command; what it prints."""
        return self.run("-m", "mailserver.cli", *arguments, "--config", str(self.dir / CONFIG), text=text)

    def run(self, *arguments: str, text: str = "") -> str:
        """Python with the checkout's modules."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.dir, env=self.environment, capture_output=True, text=True, input=text, check=False, timeout=2 * HANG,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def inside(self, action: str) -> str:
        """Call a function of this file's second part with the checkout's modules."""
        return self.run(str(Path(__file__).resolve()), "--inside", action, str(self.dir))

    def __enter__(self) -> Self:
        self._log.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            twistd = str(Path(sys.executable).parent / "twistd")
            self._process = subprocess.Popen(
                [twistd, "-n", "--pidfile=", "mailserver", "--config", str(self.dir / CONFIG)],
                cwd=self.dir, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(lambda: f"ready: {len(PROTOCOLS)} listeners" in self.log or self._ended(), "the server is not ready")
        assert not self._ended(), self.log
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(HANG)
        finally:
            self._process.kill()
            self._process.wait()

    def _ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def complaints(self) -> list[str]:
        """Lines of the log that warn of something, without their time."""
        found = re.findall(
            r"^(?:\S+) \[[^\]]*#(?:warn|error|critical)[^\]]*\] .*$|^Traceback.*$", self.log, re.MULTILINE
        )
        return [line.partition("] ")[2] for line in found]

    @contextlib.contextmanager
    def imap(self, user: str = USER, mailbox: str = "") -> Iterator[Client]:
        with Client(self.ports["imaps"], tls=True) as client:
            client.imap(f'LOGIN {user} "{PASSWORD}"')
            if mailbox:
                client.imap(f'SELECT "{mailbox}"')
            yield client
            client.imap("LOGOUT")

    def deliver(self, *recipients: str, data: bytes) -> None:
        """By LMTP."""
        with Client(self.ports["lmtp"]) as client:
            for command in (b"LHLO host.example.org", b"MAIL FROM:<joerg@example.org>"):
                client.smtp(command)
            for recipient in recipients:
                client.smtp(b"RCPT TO:<%s>" % recipient.encode())
            client.smtp(b"DATA")
            client.send(data + b".\r\n")
            for _recipient in recipients:
                assert client.line().startswith(b"250")
            client.smtp(b"QUIT")

    def index_text(self) -> None:
        """Search the text of some mailboxes until an index is worth it, and keep the session until they are indexed."""
        with self.imap() as client:
            for name in INDEXED:
                [exists] = [line for line in client.imap(f"SELECT {name}") if line.endswith(b" EXISTS")]
                for _ in range(SEARCHED // int(exists.split()[1]) + 1):
                    client.imap("SEARCH TEXT herring")
            wait_until(
                lambda: all(messages == indexed for messages, indexed in self.indexed().values()),
                "the text index is not made",
            )

    def indexed(self) -> dict[str, list[int | None]]:
        """Of those mailboxes: how many messages there are, and how many are indexed."""
        report = json.loads(self.command("index", "show", USER, "--json"))
        return {
            each["name"]: [each["messages"], each["indexed"]] for each in report["mailboxes"] if each["name"] in INDEXED
        }


def wait_until(condition: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.05)


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
            "opened": sorted(each for each in opened if not re.search(r" RECENT$|^\* FLAGS|PERMANENTFLAGS|^t ", each)),
            "messages": [each if len(each) < 300 else [each[:300], digest(each)] for each in fetched],
            "searches": searches,
            "status": text(client.imap(f"STATUS {name} (MESSAGES UIDNEXT UNSEEN RECENT)")[0]),
        }
    return seen


def text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


def digest(whole: str) -> str:
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


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


# --- Inside: with the modules of the checkout


def module(*names: str) -> Any:
    """The one that this checkout has, of all names that it has had."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError(f"none of {names}")


def named(owner: Any, *names: str) -> Any:
    """The one that it has, of all names that this checkout or another has given it."""
    return next(getattr(owner, name) for name in names if hasattr(owner, name))


def acme_modules() -> tuple[Any, Any]:
    return (
        module("mailserver.tls.acme.acme_state", "mailserver.tls.acme_state"),
        module("mailserver.tls.acme.schedule", "mailserver.tls.acme_plan"),
    )


AUTHORITY: Final = "https://acme.example.net/directory"


def inside_make(directory: Path) -> None:
    """A COPY that was interrupted by a crash; what ACME remembers; a warning of an expiry."""
    interrupt_copy(directory)
    state, plan = acme_modules()
    secret = module("mailserver.types").Secret
    where = directory / "state"
    state.account_key(where, AUTHORITY)
    state.next_account_key(where, AUTHORITY)
    state.save(where, plan.Attempts("mail.example.org", 3, 1_000_000, 4_000_000_000, "the authority does not answer"))
    state.save_windows(
        where, [plan.Window("mail.example.test", "ab" * 32, 1_000, 2_000, 3_000, 4_000, "https://why.example.net/")]
    )
    state.save_order(
        where,
        named(state, "PendingOrder", "Begun")(
            "mail.example.org", AUTHORITY, "p256", AUTHORITY + "/1", secret(b"a key"), b"a request", 1_000_000
        ),
    )
    history = open_history(where)
    newest, second, *_rest = history.of_host("mail.example.org")
    with history.transaction():
        named(history, "record_warning", "warned")("mail.example.org", newest.fingerprint, 14, 1_000_000)
        history.revoke(second.fingerprint)
    history.close()


def inside_change(directory: Path) -> None:
    """The next steps of ACME."""
    state, plan = acme_modules()
    where = directory / "state"
    state.take_next_key(where, AUTHORITY)
    state.next_account_key(where, AUTHORITY)
    state.drop_order(where, "mail.example.org")
    state.save(where, plan.Attempts("mail.example.org", 4, 2_000_000, 4_000_000_001, "it has refused"))
    history = open_history(where)
    (newest, *_rest) = history.of_host("mail.example.org")
    with history.transaction():
        named(history, "record_warning", "warned")("mail.example.org", newest.fingerprint, 7, 2_000_000)
    history.close()


def inside_networks(directory: Path) -> list[Any]:
    """Networks from which users have logged in, as of the time when the file was written."""
    file = directory / "state" / "known-networks"
    known = module("mailserver.auth.throttling.known_networks", "mailserver.auth.known").KnownNetworks(
        wall=lambda: file.stat().st_mtime
    )
    known.load(file.read_bytes())
    network = module("mailserver.auth.throttling.penalties", "mailserver.auth.penalties").network_of(
        ipaddress.ip_address("127.0.0.1")
    )
    return [len(known), hashlib.sha256(known.key).hexdigest(), known.is_known((USER, network))]


COMMANDS: Final = {
    "certificates": ("cert", "history", "--json"),
    "exposures": ("exposures", "list", "--json"),
    "authority": ("ca", "list", "--json"),
    "users": ("user", "list", "--json"),
    "special uses": ("mailbox", "special-use", USER, "--json"),
}


def inside_commands(directory: Path) -> dict[str, Any]:
    """What the administrator's commands tell, in one process."""
    main_command = module("mailserver.cli").main
    seen = {}
    for name, command in COMMANDS.items():
        done = click.testing.CliRunner().invoke(main_command, [*command, "--config", str(directory / CONFIG)])
        assert done.exit_code == 0, (command, done.output)
        seen[name] = json.loads(done.output)
    return seen


def inside_describe(directory: Path) -> dict[str, Any]:
    """What the state directory and the index hold that no client sees, without the server's modules where SQL will do."""
    where = directory / "state"
    return {
        "acme": {name: rows(where / "acme.sqlite", f"SELECT * FROM {name}") for name in ACME_TABLES},
        "certificates": {
            name: rows(where / "certificates.sqlite", f"SELECT * FROM {name}")
            for name in ("activation", "served", "pair", "pinned", "revoked")
        },
        "expiry": rows(where / "certificates.sqlite", "SELECT * FROM warned WHERE host = 'mail.example.org'"),
        "clients": rows(where / "clients.db", "SELECT DISTINCT account, rtrim(protocol, 's') FROM seen"),
        "mailboxes": describe_mailboxes(directory),
    }


ACME_TABLES: Final = ("account", "attempts", "next_account", "orders", "windows")


def rows(path: Path, query: str) -> list[str]:
    """Sorted, with octets as digests."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = [
        [digest(repr(each)) if isinstance(each, bytes) else each for each in row] for row in connection.execute(query)
    ]
    connection.close()
    return sorted(map(repr, found))


def open_history(where: Path) -> Any:
    return module("mailserver.tls.state.history", "mailserver.tls.history").History.open(where, 10, 0)


def open_account(directory: Path, user: str) -> Any:
    render = module("mailserver.message.render")
    store = module("mailserver.store.maildir.account.store", "mailserver.store.maildir.store")
    return store.MaildirStore(directory / "mail", render.summarise, hostname="mail.example.test").account(user)


def describe_mailboxes(directory: Path) -> dict[str, Any]:
    """What the index alone knows: GUIDs, modification sequences and expunged messages."""
    account = open_account(directory, USER)
    seen: dict[str, Any] = {}
    for info in account.mailboxes():
        if info.selectable:
            mailbox = account.mailbox(info.name)
            mailbox.refresh()
            loaded = mailbox.load()
            seen[info.name] = {
                "guid": mailbox.id.hex() if isinstance(mailbox.id, bytes) else str(mailbox.id),
                "modseq": loaded.modseq,
                "keywords": list(loaded.keywords),
                "rows": digest(repr([(row.uid, row.modseq, row.flags, row.size, row.date) for row in loaded.rows])),
            }
    index = Path(account.root) / "mailserver-index.sqlite"
    seen["expunged"] = rows(index, "SELECT name, uid, e.modseq FROM expunged e JOIN mailboxes ON key = mailbox")
    seen["kept"] = rows(index, "SELECT (SELECT count(*) FROM summaries), (SELECT count(*) FROM header_texts)")
    account.close()
    return seen


def interrupt_copy(directory: Path) -> None:
    """End a process in the midst of a COPY; its intent stays."""
    safeio = module("mailserver.store.maildir.disk.safeio", "mailserver.store.maildir.safeio")
    pid = os.fork()
    if pid == 0:
        try:
            account = open_account(directory, OTHER)
            account.create("Copies")
            mailbox = account.mailbox("INBOX")
            mailbox.refresh()
            safeio.hook = lambda name: os._exit(3) if name == "copy.after-link" else None
            mailbox.copy([row.uid for row in mailbox.load().rows], "Copies")
        except BaseException:
            traceback.print_exc()
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


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
        case ["--inside", "make", directory]:
            inside_make(Path(directory))
        case ["--inside", "change", directory]:
            inside_change(Path(directory))
        case ["--inside", "networks", directory]:
            print(json.dumps(inside_networks(Path(directory))))
        case ["--inside", "commands", directory]:
            print(json.dumps(inside_commands(Path(directory))))
        case ["--inside", "describe", directory]:
            print(json.dumps(inside_describe(Path(directory))))
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main(sys.argv[1:])
