"""Logins at Postfix and Exim, which ask here: by the lines of docs/authentication.md, with swaks and GNU SASL as clients."""

from __future__ import annotations

import base64
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import frozen

from mailserver.dovecot_auth import wire
from tests.cli.test_auth import HANGING
from tests.interop.exim import Exim
from tests.interop.mta import USERS, TransferAgent
from tests.interop.postfix import Postfix
from tests.server import ROOT, Server

DOCUMENT = (ROOT / "docs" / "authentication.md").read_text()
NOBODY = "elsewhere@example.test"
"""A user that none but a back end knows which does not answer."""
SOCKETS = """
[[listener]]
protocol = "auth"
socket = "{postfix}"
socket_mode = "0666"  # its directory is Postfix's alone
[[listener]]
protocol = "auth"
socket = "{exim}"
socket_mode = "0666"
[[listener]]
protocol = "auth"
socket = "{named}"
client_address = "required"
"""


def documented(line: str) -> str:
    """The indented lines around that line of the document."""
    (block,) = (
        each.group() for each in re.finditer(r"(?:^ {4}.*\n|^\n(?= {4}))+", DOCUMENT, re.MULTILINE) if line in each[0]
    )
    return "".join(each.removeprefix("    ") for each in block.splitlines(keepends=True))


@frozen
class Site:
    """The server, and the two that ask it."""

    server: Server
    postfix: Postfix
    exim: Exim
    directory: Path

    @property
    def user(self) -> tuple[str, str]:
        return self.server.user_of("example.test")

    def agent(self, name: str) -> TransferAgent:
        return self.postfix if name == "postfix" else self.exim

    def swaks(self, name: str, mechanism: str, user: str, password: str, *more: str) -> str:
        """The reply to AUTH."""
        command = ["swaks", "--server", f"127.0.0.1:{self.agent(name).port}", "--tls", "--quit-after", "AUTH"]
        command += ["--auth", mechanism, "--auth-user", user, "--auth-password", password, *more]
        return _run(command)

    def gsasl(self, name: str, password: str) -> str:
        """What GNU SASL says of SCRAM-SHA-256 behind STARTTLS."""
        command = ["gsasl", "--smtp", "--verbose", f"--connect=localhost:{self.agent(name).port}"]
        command += [f"--x509-ca-file={self.server.ca}", "--mechanism=SCRAM-SHA-256", "--no-cb"]
        return _run([*command, f"--authentication-id={self.user[0]}", f"--password={password}"])

    def smtp(self, name: str) -> smtplib.SMTP:
        """A connection with TLS."""
        client = smtplib.SMTP("127.0.0.1", self.agent(name).port, timeout=60)
        context = ssl.create_default_context(cafile=str(self.server.ca))
        context.check_hostname = False
        client.starttls(context=context)
        client.ehlo()
        return client


def _run(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        message = f"{command[0]} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False, errors="replace")
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("auth")
    postfix = Postfix()
    with tempfile.TemporaryDirectory(prefix="mailserver-auth-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = Server(
            work / "server", edit={"[auth]\n": '[auth]\nscram_for = "some"\nscram_protocols = ["submission"]\n'}
        )
        _add_hanging_back_end(server, work / "code")
        sockets = SOCKETS.format(
            postfix=postfix.private / "mailserver-auth", exim=directory / "auth", named=directory / "named"
        )
        server.config.write_text(server.config.read_text() + sockets)
        postfix.set_config(documented("smtpd_sasl_type = dovecot") + _tls_of_postfix(server, postfix.dir))
        own = documented("driver = dovecot").replace("/run/mailserver/auth", str(directory / "auth"))
        exim = Exim("tls_certificate = {dir}/spool/cert\ntls_privatekey = {dir}/spool/key\n" + own)
        _tls_of_exim(server, exim)
        with server, postfix, exim:
            yield Site(server, postfix, exim, directory)
    assert "bug session=" not in server.log, server.log[-6000:]
    assert "Unhandled" not in server.log, server.log[-6000:]


def _add_hanging_back_end(server: Server, code: Path) -> None:
    (code / "twisted" / "plugins").mkdir(parents=True)
    (code / "hanging.py").write_text(HANGING)
    (code / "twisted" / "plugins" / "hanging_plugin.py").write_text(
        'from mailserver.auth.plugins import AuthBackendMaker\nhang = AuthBackendMaker("hang", "hanging", "how")\n'
    )
    text = server.config.read_text()
    old = next(line for line in text.splitlines() if line.startswith("backends = "))
    server.config.write_text(text.replace(old, old.replace("]", ', "hang:later"]')))
    server.extra["PYTHONPATH"] = os.pathsep.join([str(code), str(ROOT)])


def _pair(server: Server) -> tuple[Path, Path]:
    found = server.dir / "certs" / "mail.example.test.pem"
    return found, found.with_suffix(".key")


def _tls_of_postfix(server: Server, directory: Path) -> str:
    certificate, key = _pair(server)
    chain = directory / "chain.pem"
    chain.write_text(key.read_text() + certificate.read_text())
    return f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_security_level = may\n"


def _tls_of_exim(server: Server, exim: Exim) -> None:
    for source, name in zip(_pair(server), ("cert", "key"), strict=True):
        shutil.copy(source, exim.dir / "spool" / name)
        os.chown(exim.dir / "spool" / name, USERS["Debian-exim"], -1)


BOTH = pytest.mark.parametrize("agent", ["postfix", "exim"])
UNAVAILABLE = {"postfix": "454 4.7.0", "exim": "435 "}


@BOTH
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_password(site: Site, agent: str, mechanism: str) -> None:
    user, password = site.user
    before = len(site.server.log)
    said = site.swaks(agent, mechanism, user, password)
    assert re.search(r"<~\s+235 ", said), said
    site.server.wait_for(
        rf"login session=\S+ protocol=auth tls=none peer=127.0.0.1 service=smtp user={user} method={mechanism}\n",
        since=before,
    )
    said = site.swaks(agent, mechanism, user, "wrong")
    # Postfix shows the reason with its id.
    shown = r".* wrong user name or password \(ref ....-....\)" if agent == "postfix" else ""
    assert re.search(r"<~\*\s+535 " + shown, said), said
    site.server.wait_for(rf"login-failed session=\S+ .*peer=127.0.0.1 .*user={user} method={mechanism} ", since=before)


@BOTH
def test_scram(site: Site, agent: str) -> None:
    user, password = site.user
    before = len(site.server.log)
    assert "authentication finished (server trusted)" in site.gsasl(agent, password).lower()
    site.server.wait_for(rf"login session=.* user={user} method=SCRAM-SHA-256\n", since=before)
    said = site.gsasl(agent, "wrong")
    assert "server trusted" not in said.lower()
    assert "535 " in said, said


@BOTH
def test_passwords_are_offered_by_tls_alone(site: Site, agent: str) -> None:
    with smtplib.SMTP("127.0.0.1", site.agent(agent).port, timeout=60) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
    with site.smtp(agent) as client:
        assert client.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "PLAIN", "LOGIN"] or agent == "exim"


@BOTH
def test_a_login_that_cannot_be_checked_is_no_wrong_password(site: Site, agent: str) -> None:
    began = time.monotonic()
    said = site.swaks(agent, "PLAIN", NOBODY, "secret")
    assert UNAVAILABLE[agent] in said, said
    assert time.monotonic() - began < 10, "before Postfix would give up"
    assert re.search(r"<~\s+235 ", site.swaks(agent, "PLAIN", *site.user)), "the next login has a new connection"


def test_the_agents_take_a_temporary_failure_for_a_wrong_password() -> None:
    """Which is why a lost connection is this server's answer."""
    postfix = Postfix(documented("smtpd_sasl_type = dovecot").replace("smtpd_tls_auth_only = yes", ""))
    authenticator = (
        "begin authenticators\na:\n driver = dovecot\n public_name = PLAIN\n server_socket = {dir}/spool/auth\n"
    )
    exim = Exim(authenticator)

    def fail(path: Path, agent: TransferAgent) -> str:
        with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor(1) as threads:
            listening.bind(str(path))
            path.chmod(0o666)
            listening.listen()
            listening.settimeout(30)
            command = ["swaks", "--server", f"127.0.0.1:{agent.port}", "--quit-after", "AUTH", "--auth", "PLAIN"]
            client = threads.submit(_run, [*command, "--auth-user", "anna", "--auth-password", "secret"])
            accepted = listening.accept()[0]
            with accepted, accepted.makefile("rb") as lines:
                accepted.sendall(wire.handshake({"PLAIN": ("plaintext",)}, process=1, connection=1, cookie="0" * 32))
                number = next(line.split(b"\t")[1] for line in lines if line.startswith(b"AUTH\t"))
                accepted.sendall(wire.failure(int(number), user="anna", reason="later", code="temp_fail"))
                return client.result(60)

    with postfix, exim:
        assert "535 5.7.8 Error: authentication failed: later" in fail(postfix.private / "mailserver-auth", postfix)
        assert "535 Incorrect authentication data" in fail(exim.dir / "spool" / "auth", exim)


@BOTH
def test_the_agent_goes_on_after_a_cancelled_exchange(site: Site, agent: str) -> None:
    user, password = site.user
    with site.smtp(agent) as client:
        assert client.docmd("AUTH", "LOGIN")[0] == 334
        assert client.docmd("*")[0] == 501
        assert client.docmd("AUTH", "PLAIN !!!!")[0] in (501, 535)
        client.user, client.password = user, password
        assert client.auth("PLAIN", client.auth_plain)[0] == 235


@BOTH
def test_another_users_name_as_authorization_identity(site: Site, agent: str) -> None:
    user, password = site.user
    with site.smtp(agent) as client:
        claim = base64.b64encode(f"someone@example.org\0{user}\0{password}".encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {claim}")[0] == 535


def test_dovecots_own_client(site: Site) -> None:
    """Which also takes the server's numbers and its cookie."""

    def ask(user: str, password: str, *more: str, name: str = "auth") -> str:
        settings = ["-o", "dovecot_config_version=2.4.1", "-o", "dovecot_storage_version=2.4.1"]
        socket_path = str(site.directory / name)
        return _run(["doveadm", "-O", *settings, "auth", "test", "-a", socket_path, *more, user, password])

    user, password = site.user
    said = ask(user, password)
    assert "auth succeeded" in said, said
    assert f"user={user}" in said
    said = ask(user, "wrong")
    assert "auth failed" in said, said
    assert "temp" not in said
    said = ask(NOBODY, "secret")
    assert "temp" in said, said
    said = ask(user, password, name="named")
    assert "auth failed" in said, said
    assert "rip is missing" in said
    said = ask(user, password, "-x", "rip=192.0.2.1", name="named")
    assert "auth succeeded" in said, said


def test_many_clients_of_postfix_at_once(site: Site) -> None:
    user, password = site.user

    def log_in(number: int) -> int:
        with site.smtp("postfix") as client:
            right = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
            return client.docmd("AUTH", f"PLAIN {right}")[0]

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(log_in, range(16))) == {235}


class Peer:
    """A program that speaks to the socket as Postfix does."""

    def __init__(self, site: Site) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(site.postfix.private / "mailserver-auth"))
        self.file = self.socket.makefile("rb")
        while self.file.readline() != b"DONE\n":
            pass
        self.socket.sendall(b"VERSION\t1\t0\nCPID\t1\n")

    def ask(self, number: int, user: str, password: str, address: str) -> None:
        plain = base64.b64encode(f"\0{user}\0{password}".encode())
        parameters = b"service=smtp\tnologin\tlip=127.0.0.1\trip=%b" % address.encode()
        self.socket.sendall(b"AUTH\t%d\tPLAIN\t%b\tresp=%b\n" % (number, parameters, plain))


def test_one_connection_serves_several_clients(site: Site) -> None:
    """The slow ones do not hold up the others."""
    users = list(site.server.accounts.items())
    peer = Peer(site)
    peer.ask(1, users[0][0], "a wrong one", "198.51.100.1")
    for number, (user, password) in enumerate(users, 2):
        peer.ask(number, user, password, f"198.51.100.{number}")
    got = [peer.file.readline().split(b"\t")[:2] for _ in range(len(users) + 1)]
    assert sorted(got[:-1]) == sorted([b"OK", b"%d" % number] for number in range(2, len(users) + 2))
    assert got[-1] == [b"FAIL", b"1"]
    peer.socket.close()


def test_a_user_under_attack_gets_in(site: Site) -> None:
    """Guesses come from forty networks at once, by the same connections of Postfix."""
    user, password = site.user
    attackers = [Peer(site) for _ in range(4)]
    for number in range(40):
        attackers[number % 4].ask(number + 1, user, f"guess {number}", f"203.0.{number}.1")
    began = time.monotonic()
    for _ in range(3):  # a mail program tries again
        said = site.swaks("postfix", "PLAIN", user, password)
        if "454 4.7.0" not in said:
            break
    assert re.search(r"<~\s+235 ", said), said
    assert time.monotonic() - began < 20
    for attacker in attackers:
        attacker.socket.close()


def test_without_this_server_the_agents_say_so(site: Site) -> None:
    site.server.stop()
    try:
        said = site.swaks("exim", "PLAIN", *site.user)
        assert "435 " in said, said
        # Postfix asks for the mechanisms when an smtpd starts, and ends it where there are none; one that knows them says 454.
        said = site.swaks("postfix", "PLAIN", *site.user)
        assert not re.search(r"<~.? +[25]35 ", said), said
        assert "454 4.7.0" in said or "no SASL authentication mechanisms" in site.postfix.log, said + site.postfix.log
    finally:
        site.server.start()
    for agent in ("postfix", "exim"):
        for _ in range(5):
            said = site.swaks(agent, "PLAIN", *site.user)
            if re.search(r"<~\s+235 ", said):
                break
            time.sleep(1)
        else:
            pytest.fail(said)
