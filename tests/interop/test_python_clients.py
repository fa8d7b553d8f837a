"""Python's imaplib, poplib and smtplib, and imapclient: the main job of each, and the wrong authority."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient

from tests.interop.conftest import DOMAINS, Interop


@contextmanager
def resolving(address: str) -> Iterator[None]:
    """The demonstration's names lead to that loopback address, in this process."""
    real = socket.getaddrinfo

    def look_up(host: Any, *more: Any, **named: Any) -> Any:
        return real(address if host in {f"mail.{domain}" for domain in DOMAINS} else host, *more, **named)

    socket.getaddrinfo = look_up
    try:
        yield
    finally:
        socket.getaddrinfo = real


@pytest.fixture(autouse=True)
def names(address: str) -> Iterator[None]:
    with resolving(address):
        yield


def trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


def imap(interop: Interop, domain: str, kind: str, ca: Path | None = None) -> imaplib.IMAP4:
    context = trusting(ca or interop.server.ca)
    if kind == "implicit":
        return imaplib.IMAP4_SSL(interop.host(domain), interop.server.port("imaps"), ssl_context=context)
    client = imaplib.IMAP4(interop.host(domain), interop.server.port("imap"))
    client.starttls(context)
    return client


def pop3(interop: Interop, domain: str, kind: str, ca: Path | None = None) -> poplib.POP3:
    context = trusting(ca or interop.server.ca)
    if kind == "implicit":
        return poplib.POP3_SSL(interop.host(domain), interop.server.port("pop3s"), context=context)
    client = poplib.POP3(interop.host(domain), interop.server.port("pop3"))
    client.stls(context)
    return client


def smtp(interop: Interop, domain: str, kind: str, ca: Path | None = None) -> smtplib.SMTP:
    context = trusting(ca or interop.server.ca)
    if kind == "implicit":
        return smtplib.SMTP_SSL(interop.host(domain), interop.server.port("submissions"), context=context)
    client = smtplib.SMTP(interop.host(domain), interop.server.port("submission"))
    client.starttls(context=context)
    return client


def test_a_message_is_sent_read_and_deleted(interop: Interop, domain: str, kind: str) -> None:
    user, password = interop.server.user_of(domain)
    subject = f"round trip {kind} {time.monotonic_ns()}"
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = user, user, subject
    message.set_content("line\n.\n..two dots\n")
    with smtp(interop, domain, kind) as sender:
        sender.login(user, password)
        sender.send_message(message)

    client = imap(interop, domain, kind)
    client.login(user, password)
    client.select()
    found = client.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
    assert len(found) == 1
    body = client.fetch(found[0].decode(), "(BODY.PEEK[TEXT])")[1][0][1]
    assert body == b"line\r\n.\r\n..two dots\r\n"

    mailbox = pop3(interop, domain, kind)
    mailbox.user(user)
    mailbox.pass_(password)
    number = mailbox.stat()[0]
    lines = mailbox.retr(number)[1]
    assert lines[-3:] == [b"line", b".", b"..two dots"]
    mailbox.dele(number)
    mailbox.quit()

    client.noop()
    assert client.search(None, "SUBJECT", f'"{subject}"')[1][0] == b""
    client.logout()


@pytest.mark.parametrize("connect", [imap, pop3, smtp])
def test_the_wrong_authority_is_refused(interop: Interop, domain: str, kind: str, connect: Callable[..., Any]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(interop, domain, kind, interop.wrong_ca)


def test_imapclient_works_through_folders_and_idle(interop: Interop, domain: str, kind: str) -> None:
    user, password = interop.server.user_of(domain)
    port = interop.server.port("imaps" if kind == "implicit" else "imap")
    context = trusting(interop.server.ca)
    with IMAPClient(interop.host(domain), port, ssl=kind == "implicit", ssl_context=context) as client:
        if kind == "starttls":
            client.starttls(context)
        client.login(user, password)
        folder = f"Projekt Ü/{kind}"
        if client.folder_exists(folder):
            client.delete_folder(folder)
        client.create_folder(folder)
        assert folder in [name for _flags, _separator, name in client.list_folders()]
        client.append(folder, b"Subject: one\r\n\r\n1\r\n", flags=[b"\\Seen"])
        client.append(folder, b"Subject: two\r\n\r\n2\r\n")
        client.select_folder(folder)
        uids = client.search("ALL")
        assert client.search("UNSEEN") == uids[1:]
        client.add_flags(uids[0], [b"$Label1"])
        assert b"$Label1" in client.get_flags(uids[0])[uids[0]]
        client.move(uids[:1], "INBOX")
        assert client.search("ALL") == uids[1:]

        client.idle()
        other = threading.Thread(target=deliver, args=(interop, domain, kind, folder))
        other.start()
        seen: list[Any] = []
        end = time.monotonic() + 60
        while (2, b"EXISTS") not in seen and time.monotonic() < end:
            seen += client.idle_check(timeout=1)
        other.join()
        client.idle_done()
        assert (2, b"EXISTS") in seen


def deliver(interop: Interop, domain: str, kind: str, folder: str) -> None:
    user, password = interop.server.user_of(domain)
    other = IMAPClient(
        interop.host(domain), interop.server.port("imaps"), ssl=True, ssl_context=trusting(interop.server.ca)
    )
    other.login(user, password)
    other.append(folder, b"Subject: three\r\n\r\n3\r\n")
    other.logout()
