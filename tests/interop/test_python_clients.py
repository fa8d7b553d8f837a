"""Python's imaplib, poplib and smtplib, and imapclient: the main job of each, and the wrong authority."""

from __future__ import annotations

import datetime as dt
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


def test_a_message_with_utf8_in_its_header(interop: Interop, domain: str, kind: str) -> None:
    """RFC 6531, RFC 9755, RFC 6856: sent and read as it is by programs that ask for that, and as a surrogate by others."""
    user, password = interop.server.user_of(domain)
    subject = f"Grüße {kind} {time.monotonic_ns()}"
    field = f"Subject: {subject}\r\n".encode()
    source = f"From: Jürgen <{user}>\r\nTo: {user}\r\n".encode() + field + b"\r\nbody\r\n"
    with smtp(interop, domain, kind) as sender:
        sender.login(user, password)
        assert sender.has_extn("smtputf8")
        sender.sendmail(user, user, source, mail_options=["SMTPUTF8", "BODY=8BITMIME"])

    for utf8 in (True, False):
        client = imap(interop, domain, kind)
        client.login(user, password)
        if utf8:
            client.enable("UTF8=ACCEPT")
        client.select(readonly=True)
        client.literal = subject.encode()
        number = client.search(None if utf8 else "utf-8", "SUBJECT")[1][0]
        header = client.fetch(number.decode(), "(BODY.PEEK[HEADER])")[1][0][1]
        client.logout()
        assert (field in header) is utf8
        assert header.isascii() is not utf8

        mailbox = pop3(interop, domain, kind)
        if utf8:
            mailbox.utf8()
        mailbox.user(user)
        mailbox.pass_(password)
        last = mailbox.stat()[0]
        answer, lines, octets = mailbox.retr(last)
        assert answer.split()[1] == b"%d" % octets
        assert (field.rstrip() in lines) is utf8
        assert b"".join(lines).isascii() is not utf8
        if not utf8:
            mailbox.dele(last)
        mailbox.quit()


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
        one = {
            "msg": b"Subject: one\r\n\r\n1\r\n",
            "flags": [b"\\Seen"],
            "date": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        }
        answer = client.multiappend(folder, [one, b"Subject: two\r\n\r\n2\r\n"])
        assert b"APPENDUID" in answer[1][0], answer
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


def test_imapclient_resynchronizes_by_modseqs(interop: Interop, domain: str, kind: str) -> None:
    """CONDSTORE and QRESYNC (RFC 7162), as far as it has them: codes, items, modifiers, search keys."""
    user, password = interop.server.user_of(domain)
    port = interop.server.port("imaps" if kind == "implicit" else "imap")
    context = trusting(interop.server.ca)
    with IMAPClient(interop.host(domain), port, ssl=kind == "implicit", ssl_context=context) as client:
        if kind == "starttls":
            client.starttls(context)
        client.login(user, password)
        assert {b"CONDSTORE", b"QRESYNC"} <= set(client.capabilities())
        assert set(client.enable("QRESYNC", "CONDSTORE")) == {b"CONDSTORE", b"QRESYNC"}
        folder = f"Resync {kind}"
        if client.folder_exists(folder):
            client.delete_folder(folder)
        client.create_folder(folder)
        for word in ("one", "two", "three"):
            client.append(folder, f"Subject: {word}\r\n\r\n{word}\r\n".encode())
        before = client.select_folder(folder)[b"HIGHESTMODSEQ"]
        uids = client.search("ALL")
        client.add_flags(uids[1], [b"\\Flagged"], silent=True)
        changed = client.fetch(uids, ["FLAGS"], modifiers=[f"CHANGEDSINCE {before}"])
        assert list(changed) == [uids[1]]
        assert b"\\Flagged" in changed[uids[1]][b"FLAGS"]
        [modseq] = changed[uids[1]][b"MODSEQ"]
        found = client.search(["MODSEQ", str(modseq)])
        assert (list(found), found.modseq) == ([uids[1]], modseq)
        assert client.folder_status(folder, ["HIGHESTMODSEQ"])[b"HIGHESTMODSEQ"] == modseq > before
        client.delete_folder(folder)


def test_imapclient_orders_and_asks_for_quotas(interop: Interop) -> None:
    """SORT, THREAD, QUOTA, and SPECIAL-USE, as far as it has them."""
    user, password = interop.server.user_of("example.test")
    context = trusting(interop.server.ca)
    with IMAPClient(interop.host("example.test"), interop.server.port("imaps"), ssl_context=context) as client:
        client.login(user, password)
        if client.folder_exists("Order"):
            client.delete_folder("Order")
        client.create_folder("Order")
        for number, (subject, reference) in enumerate((("beta", ""), ("alpha", ""), ("Re: beta", "<0@example.net>"))):
            field = f"References: {reference}\r\n" if reference else ""
            text = f"From: a@example.net\r\nSubject: {subject}\r\nMessage-ID: <{number}@example.net>\r\n{field}\r\n"
            client.append("Order", text.encode())
        client.select_folder("Order")
        first, second, third = client.search("ALL")
        assert client.sort(["SUBJECT"]) == [second, first, third]
        assert client.sort(["REVERSE ARRIVAL"], ["SUBJECT", "beta"]) in ([third, first], [first, third])
        for algorithm in ("REFERENCES", "ORDEREDSUBJECT"):
            assert sorted(client.thread(algorithm)) == [(first, third), (second,)]
        roots, quotas = client.get_quota_root("Order")
        assert roots.quota_roots == ["User quota"]
        assert [quota.quota_root for quota in quotas] in ([], ["User quota"])
        assert client.find_special_folder(b"\\Sent") == "Sent"
        client.delete_folder("Order")


def deliver(interop: Interop, domain: str, kind: str, folder: str) -> None:
    user, password = interop.server.user_of(domain)
    other = IMAPClient(
        interop.host(domain), interop.server.port("imaps"), ssl=True, ssl_context=trusting(interop.server.ca)
    )
    other.login(user, password)
    other.append(folder, b"Subject: three\r\n\r\n3\r\n")
    other.logout()
