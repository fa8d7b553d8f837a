"""What mail servers get wrong, and what this one promises: each line with its test.

 1. Octets before TLS never reach the TLS session, what was learnt is forgotten: `test_octets_behind_starttls`,
    `test_everything_is_forgotten`; tests/imap/test_session.py, tests/smtp/test_submission.py, tests/pop3/test_session.py.
 2. Without TLS all credentials are refused alike: `test_credentials_before_tls`.
 3. No session of one name is resumed for another that demands more: tests/tls/test_policy.py,
    `test_a_ticket_does_not_open_a_refused_name`.
 4. Any server name gets a certificate or a clean alert: tests/tls/test_policy.py; no HTTP: test_http.py.
 5. Unknown user and wrong password, same text: `test_unknown_and_wrong_look_alike`; same time, delays:
    tests/auth/test_service.py, tests/auth/test_penalties.py.
 6. NUL and controls shorten nothing: test_imap.py, test_pop3.py, test_smtp.py, `test_nul_in_sasl`.
 7. No large literal before login, none over the limit: test_imap.py; chunks: test_smtp.py.
 8. Clients that do not read: test_messages.py; that drip, and idle times, by the clock: tests/imap/test_session.py,
    tests/smtp/test_submission.py, tests/pop3/test_session.py, tests/net/test_connection.py and _limits, transcripts autologout, idle-timer.
 9. Nobody makes another wait: the Watcher of conftest.py, in every test here; each command's hostile case: test_costs.py;
    SEARCH, kicks and stops during it: test_search_bounds.py, tests/live/test_stop.py; who computes without end:
    tests/live/test_overrun.py.
10. Hard messages: test_messages.py; linear time: tests/message/test_hostile.py.
11. CRLF . CRLF alone ends a message; chunks are no commands: test_smtp.py, outbound tests/smtp/test_relay.py.
12. Senders: `test_senders`, and whole in tests/smtp/test_sender.py and tests/smtp/test_submitted.py.
13. Nothing breaks the syntax of a response or of a log line: `balanced` in test_messages.py, `test_header_injection`,
    tests/net/test_events.py.
14. Mailbox names: test_imap.py, tests/store/contract_names.py.
15. Acknowledged means synced: tests/store/test_powercut.py, tests/store/test_mutation.py.
16. kill -9: tests/disk/test_kill.py, tests/store/test_crash.py.
17. Interrupted commands are finished or undone: tests/store/test_crash.py.
18. A start never waits for dead locks: tests/disk/test_kill.py.
19. Full disk, no inodes: tests/disk/test_full_disk.py.
20. UIDs survive foreign renames: tests/store/test_maildir_foreign.py.
21. Foreign files: `test_foreign_files`, tests/store/test_maildir_foreign.py.
22. Everyone exhausts only an own share: `test_connections_of_one_address`, `test_sessions_of_one_user`,
    tests/auth/test_hash_pool.py.

Faults of other libraries that must not come back: commands behind STARTTLS (1), AUTHENTICATE in clear text (2), literals
run as commands, odd and huge ones (test_imap.py), `test_partial`, `test_order`, sets of 3,300 numbers (test_imap.py),
`test_expunge_is_told`, `test_capa`, dot-stuffing at chunk edges and DELE 0 (test_pop3.py), data lines over 16 KiB, many
recipients (test_smtp.py), `test_submission_demands`, outbound dots (tests/smtp/test_relay.py), syncs
(tests/store/test_powercut.py), watches that go (tests/notify/test_watcher.py).
"""

from __future__ import annotations

import os
import re
import socket
from base64 import b64encode
from pathlib import Path

import pytest

from tests.hostile.wire import Client, deliver, log_in, plain
from tests.refs import without_refs
from tests.server import Server

USER = "anna@example.test"
STARTTLS = {"imap": b"x STARTTLS", "pop3": b"STLS", "submission": b"STARTTLS", "lmtp": b"STARTTLS"}
BEHIND = {"imap": b"y NOOP\r\n", "pop3": b"CAPA\r\n", "submission": b"NOOP\r\n", "lmtp": b"NOOP\r\n"}


@pytest.mark.parametrize("protocol", STARTTLS)
@pytest.mark.parametrize("behind", ["command", "octet", "half", "hello"])
def test_octets_behind_starttls(server: Server, protocol: str, behind: str) -> None:
    """One refusal at most, then the end: no octet of it is answered, inside TLS or out (RFC 3207 4.2, RFC 9051 11.1)."""
    octets = {"command": BEHIND[protocol], "octet": b"y", "half": b"\r", "hello": b"\x16\x03\x01"}[behind]
    with Client(server, protocol) as client:
        if protocol in ("submission", "lmtp"):
            client.ask(b"EHLO x" if protocol == "submission" else b"LHLO x")
        told = len(server.log)
        client.send(STARTTLS[protocol] + b"\r\n" + octets)
        answer = client.to_the_end()
        assert re.fullmatch(
            rb"((?:\* BYE [^\r\n]*\r\n)?x BAD [^\r\n]*\r\n|-ERR[^\r\n]*\r\n|501 5\.5\.2[^\r\n]*\r\n)?", answer
        ), answer
    server.wait_for("(?i)starttls|stls", since=told)


@pytest.mark.parametrize("protocol", STARTTLS)
def test_everything_is_forgotten(server: Server, protocol: str) -> None:
    with Client(server, protocol) as client:
        if protocol in ("submission", "lmtp"):
            assert client.ask(b"EHLO x" if protocol == "submission" else b"LHLO x").startswith(b"250-")
        if protocol == "lmtp":
            assert client.ask(b"MAIL FROM:<>").startswith(b"250")
        assert client.ask(STARTTLS[protocol]).split()[0 if protocol != "imap" else 1] in (b"OK", b"+OK", b"220")
        client.start_tls()
        if protocol == "imap":
            capabilities = client.command(b"CAPABILITY")[0]
            assert b"AUTH=PLAIN" in capabilities
            assert b"STARTTLS" not in capabilities
            assert b"LOGINDISABLED" not in capabilities
        elif protocol == "pop3":
            assert client.ask(b"CAPA").startswith(b"+OK")
            offered = client.text()
            assert b"STLS" not in offered
            assert b"SASL PLAIN LOGIN" in offered
        else:
            assert client.ask(b"MAIL FROM:<>").startswith((b"503", b"530"))
            assert client.ask(b"RCPT TO:<anna@example.test>").startswith((b"503", b"530"))
            assert b"STARTTLS" not in client.ask(b"EHLO x" if protocol == "submission" else b"LHLO x")
        client.in_step()


def test_credentials_before_tls(server: Server) -> None:
    """Right, wrong, unknown, malformed: the same words, without a challenge."""
    pairs = [(USER, server.accounts[USER]), (USER, "wrong"), ("nobody@example.test", "wrong"), ("", "")]
    answers: dict[str, set[bytes]] = {"imap": set(), "pop3": set(), "submission": set(), "submission, no login": set()}
    for user, password in pairs:
        with Client(server, "imap") as client:
            answers["imap"].add(client.command(f'LOGIN "{user}" "{password}"'.encode())[-1])
            answers["imap"].add(client.command(b"AUTHENTICATE PLAIN")[-1])
            answers["imap"].add(client.command(b"AUTHENTICATE PLAIN " + plain(user, password))[-1])
            client.in_step()
        with Client(server, "pop3") as client:
            answers["pop3"] |= {
                client.ask(f"USER {user}".encode()),
                client.ask(b"AUTH PLAIN"),
                client.ask(b"AUTH PLAIN " + plain(user, password)),
            }
            client.in_step()
        with Client(server, "submission") as client:
            client.ask(b"EHLO x")
            answers["submission"] |= {
                client.ask(b"AUTH PLAIN"),
                client.ask(b"AUTH LOGIN"),
                client.ask(b"AUTH PLAIN " + plain(user, password)),
            }
            answers["submission, no login"] |= {
                client.ask(b"MAIL FROM:<%b>" % USER.encode()),
                client.ask(b"XYZZY"),
            }
            client.in_step()
    assert all(len(words) == 1 for words in answers.values()), answers
    assert answers["imap"].pop().startswith(b"NO [PRIVACYREQUIRED]")
    assert answers["pop3"].pop().startswith(b"-ERR")
    assert answers["submission"].pop().startswith(b"530 5.7.0")


def test_unknown_and_wrong_look_alike(server: Server) -> None:
    words = set()
    for name in ("emma@example.org", "nobody1@example.org", "nobody2@elsewhere.test"):
        with Client(server, "imaps") as client:
            words.add(without_refs(client.command(f'LOGIN "{name}" "wrong"'.encode())[-1]))
    assert len(words) == 1
    assert words.pop().startswith(b"NO [AUTHENTICATIONFAILED]")


def test_nul_in_sasl(server: Server) -> None:
    password = server.accounts[USER]
    for response in (
        f"\0{USER}\0{password}\0",
        f"\0{USER}\0{password}\0x",
        f"\0{USER}\0\0{password}",
        f"{USER}\0{password}",
        "\0\0\0",
    ):
        with Client(server, "submissions") as client:
            client.ask(b"EHLO x")
            assert client.ask(b"AUTH PLAIN " + b64encode(response.encode())).startswith((b"501", b"535"))
            assert client.ask(b"MAIL FROM:<%b>" % USER.encode()).startswith(b"530")


@pytest.mark.parametrize(
    ("sender", "header", "reply"),
    [
        (USER, f"From: {USER}", b"250"),
        (USER, "X: y", b"250"),
        (USER, "From: ben@example.test", b"550"),
        (USER, f"From: {USER}\r\nFrom: {USER}", b"550 5.6.0"),
        (USER, "From: \x01\x02(", b"550 5.6.0"),
        (USER, f"From: {USER}, ben@example.test", b"550"),
        (USER, f"from : {USER}\r\nFROM: ben@example.test", b"550 5.6.0"),
    ],
)
def test_senders(server: Server, sender: str, header: str, reply: bytes) -> None:
    with log_in(server, "submissions", USER) as client:
        assert client.ask(b"MAIL FROM:<ben@example.test>").startswith(b"550 5.7.1")
        assert client.ask(f"MAIL FROM:<{sender}>".encode()).startswith(b"250")
        assert client.ask(b"RCPT TO:<ben@example.org>").startswith(b"550")
        assert client.ask(f"RCPT TO:<{USER}>".encode()).startswith(b"250")
        assert client.ask(b"DATA").startswith(b"354")
        client.send(header.encode() + b"\r\nSubject: s\r\n\r\ntext\r\n.\r\n")
        assert client.reply().startswith(reply)
        client.in_step()


def test_header_injection(server: Server, mail_user: str) -> None:
    """Fields made to look like responses stay inside strings."""
    evil = b'") (FLAGS (\\Deleted))\t* 1 EXPUNGE \x7f\xff"\\'
    message = b"".join(
        b"%b: %b\r\n" % (name, evil) for name in (b"Subject", b"From", b"To", b"Message-ID", b"In-Reply-To", b"Date")
    )
    message += b'Content-Type: text/plain; name="%b"; charset="\x01"\r\nContent-ID: %b\r\n\r\nx\r\n' % (evil, evil)
    deliver(server, mail_user, message)
    with log_in(server, "imaps", mail_user) as client:
        client.command(b"SELECT INBOX")
        for item in (b"ENVELOPE", b"BODYSTRUCTURE", b"BODY[HEADER.FIELDS (SUBJECT)]", b"ALL", b"FULL"):
            answers = client.command(b"FETCH 1 " + item)
            assert len(answers) <= 3, answers
            assert answers[-1].startswith(b"OK")
        client.in_step()


def test_foreign_files(server: Server, mail_user: str) -> None:
    deliver(server, mail_user, b"Subject: good\r\n\r\nx\r\n")
    root = server.maildir(mail_user)
    os.mkfifo(root / "new" / "1.fifo.host")
    os.mkfifo(root / "cur" / "2.fifo.host:2,S")
    (root / "new" / "3.link.host").symlink_to("/etc/passwd")
    (root / "new" / "4.loop.host").symlink_to("4.loop.host")
    (root / "cur" / "5.dir.host:2,").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        place = os.open(root / "new", os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{place}/6.sock")
        os.close(place)
    (root / "new" / "7.wrong,S=5,W=999999999.host").write_bytes(b"Subject: sizes\r\n\r\n" + b"y" * 100 + b"\r\n")
    (root / "new" / "8.empty.host").write_bytes(b"")
    (root / "cur" / "9.flags.host:2,ZZZ\xff,,:2,S").write_bytes(b"Subject: odd\n\nx\n")
    with log_in(server, "imaps", mail_user) as client:
        client.command(b"SELECT INBOX")
        answers = client.command(b"FETCH 1:* (RFC822.SIZE BODY.PEEK[])")
        assert answers[-1].startswith(b"OK"), answers[-1]
        sizes = {}
        for answer in answers[:-1]:
            size = re.search(rb"RFC822\.SIZE ([0-9]+)", answer)
            sent = re.search(rb"BODY\[\] \{([0-9]+)\}", answer)
            assert size is not None
            assert b"root:" not in answer
            if sent:
                assert size[1] == sent[1]
                sizes[answer] = size[1]
        assert sum(b"Subject: " in answer for answer in answers) == 3, answers
        client.in_step()
    with log_in(server, "pop3s", mail_user) as pop3:
        count = int(pop3.ask(b"STAT").split()[1])
        for number in range(1, count + 1):
            assert pop3.ask(b"RETR %d" % number).startswith(b"+OK")
            pop3.text()


def test_connections_of_one_address(server: Server) -> None:
    """More than its share, not yet logged in, is closed; from another address one is served all the while."""
    clients = []
    try:
        for _ in range(230):
            raw = socket.create_connection(("127.0.0.1", server.port("pop3")), timeout=10)
            clients.append(raw)
        refused = 0
        for raw in clients:
            try:
                refused += not raw.recv(10).startswith(b"+OK")
            except ConnectionError:
                refused += 1
        assert 20 <= refused <= 60, refused
        with socket.create_connection(("::1", server.port("pop3")), timeout=10) as other:
            assert other.recv(100).startswith(b"+OK")
    finally:
        for raw in clients:
            raw.close()
    with log_in(server, "imaps", USER) as client:
        client.in_step()


def test_sessions_of_one_user(server: Server, mail_user: str) -> None:
    clients = [log_in(server, "imaps", mail_user) for _ in range(20)]
    with Client(server, "imaps") as client:
        answer = client.command(f'LOGIN "{mail_user}" "{server.accounts[mail_user]}"'.encode())[-1]
        assert answer.startswith(b"NO [LIMIT]"), answer
        client.in_step()
    for one in clients:
        one.close()
    with log_in(server, "imaps", USER) as client:
        client.in_step()


# --- Faults of other libraries


def test_partial(server: Server, mail_user: str) -> None:
    deliver(server, mail_user, b"Subject: 0123456789\r\n\r\nbody\r\n")
    with log_in(server, "imaps", mail_user) as client:
        client.command(b"SELECT INBOX")
        whole = client.command(b"FETCH 1 BODY.PEEK[]")[0].partition(b"}\r\n")[2][:-1]
        for start, count in ((0, 10), (5, 1), (0, 4294967295), (len(whole) - 3, 10), (len(whole), 10), (4294967295, 1)):
            answer = client.command(b"FETCH 1 BODY.PEEK[]<%d.%d>" % (start, count))[0]
            part = whole[start : start + count]
            expected = b"{%d}\r\n%b)" % (len(part), part) if part else b'"")'
            assert answer == b"* 1 FETCH (BODY[]<%d> " % start + expected or (
                not part and answer.endswith(b"{0}\r\n)")
            ), answer


def test_order(server: Server, mail_user: str) -> None:
    """Slow commands before quick ones: answers keep the order of the commands."""
    with log_in(server, "imaps", mail_user) as client:
        client.send(b"".join(b'a%d CREATE box%d\r\nb%d NOOP\r\nc%d LIST "" box%d\r\n' % ((n,) * 5) for n in range(20)))
        tags = []
        while len(tags) < 60:
            line = client.reply()
            if not line.startswith(b"*"):
                assert b" OK " in line
                tags.append(line.split()[0])
        assert tags == [b"%b%d" % (letter, n) for n in range(20) for letter in (b"a", b"b", b"c")]


def test_expunge_is_told(server: Server, mail_user: str) -> None:
    deliver(server, mail_user, b"Subject: x\r\n\r\nx\r\n")
    with log_in(server, "imaps", mail_user) as idle, log_in(server, "imaps", mail_user) as other:
        idle.command(b"SELECT INBOX")
        idle.send(b"i IDLE\r\n")
        assert idle.reply().startswith(b"+")
        other.command(b"SELECT INBOX")
        other.command(b"STORE 1 +FLAGS.SILENT (\\Deleted)")
        other.command(b"EXPUNGE")
        told = [idle.reply()]
        while b"EXPUNGE" not in told[-1]:
            told.append(idle.reply())
        assert told[-1] == b"* 1 EXPUNGE"
        idle.send(b"DONE\r\n")
        assert idle.reply().startswith(b"i OK")


def test_capa(server: Server) -> None:
    """RFC 2449: what is listed is what there is."""
    with Client(server, "pop3") as client:
        client.ask(b"CAPA")
        before = client.text().split(b"\r\n")
        assert b"STLS" in before
        assert not [line for line in before if line.startswith((b"SASL", b"USER", b"IMPLEMENTATION"))]
    with log_in(server, "pop3s", USER) as client:
        client.ask(b"CAPA")
        after = client.text().split(b"\r\n")
        assert {b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER"} <= set(after)
        assert not {b"STLS", b"CELERITY", b"AUSPEX", b"POTENCE"} & set(after)


def test_submission_demands(server: Server) -> None:
    with log_in(server, "submissions", USER) as client:
        for parameters in (
            b"X=Y",
            b"SIZE",
            b"SIZE=x",
            b"BODY=9BIT",
            b"SIZE=1 SIZE=1",
            b"=",
            b"RET=FULL",
            b"SMTPUTF8=1",
        ):
            assert client.ask(b"MAIL FROM:<%b> %b" % (USER.encode(), parameters)).startswith(
                (b"501", b"504", b"555")
            ), parameters
        offered = client.ask(b"EHLO x")
        assert b"SIZE " in offered
        assert b"CHUNKING" in offered
        client.in_step()
    with Client(server, "lmtp") as client:
        assert client.ask(b"MAIL FROM:<>").startswith(b"503")
        assert client.ask(b"EHLO x").startswith(b"500")
        client.in_step()


def test_the_list_above_names_tests_that_exist() -> None:
    root = Path(__file__).parent
    text = __doc__ or ""
    assert re.search(r"tests/[a-z0-9_/]+\.py", text)
    assert re.search(r"`test_\w+`", text)
    for name in set(re.findall(r"tests/[a-z0-9_/]+\.py", text)):
        assert (root.parent.parent / name).exists(), name
    for name in set(re.findall(r"\btest_[a-z0-9]+\.py", text)) - {
        Path(name).name for name in re.findall(r"tests/[a-z0-9_/]+\.py", text)
    }:
        assert (root / name).exists(), name
    known = "".join(path.read_text() for path in root.parent.rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+)`", text)):
        assert f"def {name}(" in known, name
