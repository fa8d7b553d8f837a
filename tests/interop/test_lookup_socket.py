"""Mail over a Postfix that asks here for domains, addresses and senders: by the lines of docs/accounts.md."""

from __future__ import annotations

import base64
import os
import re
import smtplib
import time
from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.cli.test_auth import HANGING
from tests.interop.postfix import Postfix
from tests.server import ROOT, Server

DOCUMENT = (ROOT / "docs" / "accounts.md").read_text()
SENDER = "someone@elsewhere.example"
SOCKETS = """
[[listener]]
protocol = "lookup"
socket = "{private}/mailserver-lookup"
socket_mode = "0666"  # its directory is Postfix's alone
[[listener]]
protocol = "lmtp"
socket = "{private}/mailserver-lmtp"
socket_mode = "0666"
[[listener]]
protocol = "auth"
socket = "{private}/mailserver-auth"
socket_mode = "0666"
"""
LOGINS = """
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/mailserver-auth
lmtp_tls_security_level = none
"""
COMMANDS = """\
alias add info@example.test anna@example.test ben@example.test
group add all@example.test info@example.test anna@example.org
alias add out@example.test anna@example.test far@elsewhere.example --force
domain add example.net --no-host
domain alias example.net example.test
domain catch-all example.org anna@example.org
"""
PLUGIN = """\
from mailserver.auth.plugins import AuthBackendMaker
hang = AuthBackendMaker("hang", "hanging", "how")
"""
"""A back end that never answers for one user."""


@frozen
class Site:
    """The server, and the Postfix in front of it."""

    server: Server
    postfix: Postfix

    def query(self, name: str, key: str) -> str:
        """What postmap prints; empty where the key is not found."""
        command = [self.postfix.package / "usr/sbin/postmap", "-c", self.postfix.config, "-q", key]
        command.append(f"socketmap:unix:{self.postfix.private}/mailserver-lookup:{name}")
        done = self.postfix.run(*command)
        assert not done.stderr, done.stderr
        return done.stdout.rstrip("\n")

    def reply_to(self, recipient: str, sender: str = SENDER) -> str:
        """The reply to RCPT."""
        with smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=60) as client:
            client.ehlo()
            client.mail(sender)
            code, text = client.rcpt(recipient)
        return f"{code} {text.decode()}"

    def sender_reply(self, user: str, sender: str) -> str:
        """The reply to RCPT from a user that has logged in."""
        with smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=60) as client:
            client.ehlo()
            plain = base64.b64encode(f"\0{user}\0{self.server.accounts[user]}".encode()).decode()
            assert client.docmd("AUTH", f"PLAIN {plain}")[0] == 235
            client.mail(sender)
            code, text = client.rcpt("ben@example.test")
        return f"{code} {text.decode()}"

    def send(self, recipient: str, subject: str) -> None:
        """Send a message by SMTP."""
        with smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=60) as client:
            client.sendmail(SENDER, [recipient], f"From: {SENDER}\r\nSubject: {subject}\r\n\r\ntext\r\n")

    def copies(self, user: str, subject: str) -> list[str]:
        """The folders in which a user has that message, one for each copy."""
        maildir = self.server.maildir(user)
        found = []
        for directory in (maildir / "new", maildir / "cur", *maildir.glob(".*/new"), *maildir.glob(".*/cur")):
            holding = [
                each
                for each in (directory.iterdir() if directory.exists() else ())
                if f"\nSubject: {subject}\r\n".encode() in each.read_bytes()
            ]
            found += [directory.parent.name.removeprefix("Maildir").removeprefix(".")] * len(holding)
        return found

    def wait_for_copies(self, user: str, subject: str) -> list[str]:
        end = time.monotonic() + 30
        while not (found := self.copies(user, subject)):
            assert time.monotonic() < end, self.postfix.log[-4000:] + self.server.log[-4000:]
            time.sleep(0.1)
        return found


def documented(line: str) -> str:
    """The indented lines around that line of the document."""
    (block,) = (
        each.group() for each in re.finditer(r"(?:^ {4}.*\n|^\n(?= {4}))+", DOCUMENT, re.MULTILINE) if line in each[0]
    )
    return "".join(each.removeprefix("    ") for each in block.splitlines(keepends=True))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("lookup")
    postfix = Postfix()
    postfix.set_config(documented("virtual_alias_maps =") + LOGINS)
    server = Server(
        place / "server",
        edit={
            f'"file:{place}/server/users"': f'"directory:{place}/server/accounts/directory.db", "virtual:{place}/virtual", "hang:later"',
        },
        append=SOCKETS.replace("{private}", str(postfix.private)),
    )
    code = place / "code"
    (code / "twisted" / "plugins").mkdir(parents=True)
    (code / "hanging.py").write_text(
        HANGING.replace(
            "        return time.sleep",
            "        if name != 'away@example.test': return None\n        return time.sleep",
        )
    )
    (code / "twisted" / "plugins" / "hanging_plugin.py").write_text(PLUGIN)
    server.extra["PYTHONPATH"] = os.pathsep.join([str(code), str(ROOT)])
    (place / "virtual").write_text("loop@example.test pool@example.test\npool@example.test loop@example.test\n")
    server.run_cli("directory", "create", "--config", str(server.config))
    server.run_cli("directory", "import", "--config", str(server.config), str(server.dir / "users"))
    for line in COMMANDS.splitlines():
        group, name, *words = line.split()
        server.run_cli(group, name, "--config", str(server.config), *words)
    with server, postfix:
        yield Site(server, postfix)
    assert "bug session=" not in server.log, server.log[-6000:]
    assert "Unhandled" not in server.log, server.log[-6000:]


@pytest.mark.parametrize(
    ("name", "key", "answer"),
    [
        ("domain", "example.test", "example.test"),
        ("domain", "example.net", "example.net"),
        ("domain", "elsewhere.example", ""),
        ("mailbox", "anna+lists@example.test", "anna@example.test"),
        ("mailbox", "nobody@example.test", ""),
        ("mailbox", "out@example.test", ""),
        ("alias", "Anna@example.test", "anna@example.test"),
        ("alias", "all+Sale@example.net", "anna+Sale@example.test, ben+Sale@example.test, anna+Sale@example.org"),
        ("alias", "out@example.test", "anna@example.test, far@elsewhere.example"),
        ("alias", "nobody@example.org", "anna@example.org"),
        ("alias", "@example.org", ""),
        ("alias", "root", ""),
        ("sender", "info@example.test", "anna@example.test,ben@example.test"),
        ("sender", "all@example.test", ""),
        ("sender", "anna@example.net", "anna@example.test"),
    ],
)
def test_postmap_asks(site: Site, name: str, key: str, answer: str) -> None:
    assert site.query(name, key) == answer


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("anna@example.test", "250"),
        ("Anna+lists@example.test", "250"),
        ("ben@example.net", "250"),
        ("all@example.test", "250"),
        ("out@example.test", "250"),
        ("whoever@example.org", "250"),
        ("postmaster@example.test", "250"),
        ("abuse@example.net", "250"),
        ("nobody@example.test", "550 5.1.1"),
        ("nobody@example.net", "550 5.1.1"),
        ('"a b"@example.test', "550 5.1.1"),
        ("someone@elsewhere.example", "454 4.7.1"),
    ],
)
def test_recipients(site: Site, recipient: str, code: str) -> None:
    assert site.reply_to(recipient).startswith(code)


def test_a_group_gets_each_message_once(site: Site) -> None:
    site.send("all@example.net", "to all")
    for user in ("anna@example.test", "ben@example.test", "anna@example.org"):
        assert site.wait_for_copies(user, "to all") == [""]


def test_a_user_is_not_taken_by_the_catch_all(site: Site) -> None:
    site.send("david@example.org", "to a user")
    assert site.wait_for_copies("david@example.org", "to a user") == [""]
    site.send("unknown@example.org", "to nobody")
    assert site.wait_for_copies("anna@example.org", "to nobody") == [""]
    assert not site.copies("anna@example.org", "to a user")


def test_a_detail_names_the_folder(site: Site) -> None:
    (site.server.maildir("ben@example.test") / ".Lists" / "new").mkdir(parents=True)
    (site.server.maildir("ben@example.test") / ".Lists" / "cur").mkdir()
    (site.server.maildir("ben@example.test") / ".Lists" / "tmp").mkdir()
    site.send("info+Lists@example.net", "with a detail")
    assert site.wait_for_copies("ben@example.test", "with a detail") == ["Lists"]
    assert site.wait_for_copies("anna@example.test", "with a detail") == [""], "it has no such folder"


@pytest.mark.parametrize(
    ("user", "sender", "code"),
    [
        ("anna@example.test", "anna@example.test", "250"),
        ("anna@example.test", "info@example.test", "250"),
        ("anna@example.test", "Anna@example.net", "250"),
        ("carla@example.test", "info@example.test", "553 5.7.1"),
        ("anna@example.test", "ben@example.test", "553 5.7.1"),
        ("anna@example.test", "all@example.test", "553 5.7.1"),
        ("anna@example.test", "someone@elsewhere.example", "553 5.7.1"),
    ],
)
def test_senders(site: Site, user: str, sender: str, code: str) -> None:
    said = site.sender_reply(user, sender)
    assert said.startswith(code), said


def test_postfix_that_splits_details_itself(site: Site) -> None:
    """It asks for the address without its detail only where the whole is not found."""
    site.postfix.set_config(documented("virtual_alias_maps =") + LOGINS + "recipient_delimiter = +\n")
    site.postfix.reload()
    try:
        assert site.reply_to("nobody+x@example.test").startswith("550 5.1.1")
        site.send("info+Lists@example.test", "split")
        assert site.wait_for_copies("ben@example.test", "split") == ["Lists"]
    finally:
        site.postfix.set_config(documented("virtual_alias_maps =") + LOGINS)
        site.postfix.reload()


def is_logged(site: Site, words: str) -> bool:
    """Does Postfix log the words? A process of its own writes its log, a moment later."""
    end = time.monotonic() + 30
    while words not in site.postfix.log:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_loop_is_a_fault_of_the_map(site: Site) -> None:
    assert site.reply_to("loop@example.test").startswith("451 4.3.")
    assert is_logged(site, "lead round in a loop")


def test_what_cannot_be_looked_up_is_tried_again_later(site: Site) -> None:
    began = time.monotonic()
    said = site.reply_to("away@example.test")
    assert said.startswith("451 4.3."), said
    assert time.monotonic() - began < 60
    assert is_logged(site, "addresses cannot be looked up at the moment")
    assert site.reply_to("ben@example.test").startswith("250"), "others go on"


def test_without_this_server_mail_comes_later(site: Site) -> None:
    site.server.stop()
    try:
        said = site.reply_to("ben@example.test")
        assert said.startswith("451 4.3."), said
    finally:
        site.server.start()
    end = time.monotonic() + 30
    while not site.reply_to("ben@example.test").startswith("250"):
        assert time.monotonic() < end, site.postfix.log[-4000:]
        time.sleep(0.5)
