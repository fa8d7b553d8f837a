"""The log: one line for each thing that happens, nothing that breaks a line, no secret; reopened at SIGUSR1."""

from __future__ import annotations

import base64
import json
import re
import signal
from pathlib import Path

from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.server import Server


def test_one_line_each_and_no_secret(tmp_path: Path) -> None:
    wrong = "Wr0ng-Secret-In-No-Log"
    with Server(tmp_path) as server:
        user, password = server.user_of("example.test")
        for protocol in ("imaps", "pop3s", "submissions"):
            with Client(server, protocol) as client:
                client.greeting()
                client.try_login(user, wrong)
            with Client(server, protocol) as client:
                client.greeting()
                client.try_login("nobody\u00e9 x=1@example.test", wrong)
        with logged_in(server, "imaps") as client:
            client.send(b"a SELECT INBOX\r\n")
            client.until(rb"a OK")
            client.send(b"b STORE 1 +FLAGS (\\Deleted)\r\n")
            client.until(rb"b OK")
            client.send(b"c EXPUNGE\r\n")
            client.until(rb"c OK")
            client.send(b"d LOGOUT\r\n")
            client.rest()
        with logged_in(server, "pop3s") as client:
            client.ask(b"QUIT\r\n")
        with logged_in(server, "submissions") as client:
            client.send(f"MAIL FROM:<{user}>\r\nRCPT TO:<ben@example.test>\r\nDATA\r\n".encode())
            for _ in range(3):
                client.line()
            assert client.ask(f"From: {user}\r\nSubject: x\r\n\r\ntext\r\n.\r\n".encode()).startswith(b"250")
            client.ask(b"QUIT\r\n")
        with Client(server, "lmtp") as client:
            client.greeting()
            client.hello()
            client.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<ben@example.test>\r\nDATA\r\n")
            for _ in range(3):
                client.line()
            assert client.ask(b"Subject: x\r\n\r\ntext\r\n.\r\n").startswith(b"250")
            client.ask(b"QUIT\r\n")
        with Client(server, "imap") as client:  # before TLS: a name and a password that are refused
            client.greeting()
            client.try_login(user, password)
        with Client(server, "imaps") as client:
            client.greeting()
            encoded = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
            client.send(f"a AUTHENTICATE PLAIN {encoded}\r\nb XYZZY {password}\r\n".encode())
            client.until(rb"b ")
        eventually(lambda: server.log.count("\n") and len(events(server.log, "logout")) == 4)
        log = server.log
        assert len(events(log, "login")) == 4
        assert len(events(log, "login[-_]failed")) == 6
        assert len(events(log, "expunge")) == 1
        assert len(events(log, "submission")) == 1
        assert len(events(log, "delivery")) == 1
        for event in ("login", "logout", "expunge", "submission", "delivery"):
            for line in events(log, event):
                assert re.search(r" session=\S+ protocol=\S+ peer=127\.0\.0\.1 tls=\S+ ", line), line
        secrets = [wrong, *server.accounts.values()]
        secrets += [base64.b64encode(secret.encode()).decode().rstrip("=") for secret in tuple(secrets)]
        secrets += [base64.b64encode(f"\0{name}\0{word}".encode()).decode() for name, word in server.accounts.items()]
        assert [secret for secret in secrets if secret in log] == []
    no_bug(server.log)


def events(log: str, name: str) -> list[str]:
    return re.findall(rf"^.*\] {name} session=.*$", log, re.MULTILINE)


def test_a_name_cannot_make_a_line_of_its_own(shared: Server) -> None:
    since = len(shared.log)
    with Client(shared, "imaps") as client:
        client.greeting()
        name = b'eve\\" login session=1 user=root'
        client.send(b'a LOGIN "' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'" "x"\r\n')
        assert client.until(rb"a ")[-1].startswith(b"a NO")
        client.send(b"b LOGIN {23}\r\n")
        client.line()
        client.send(b"eve\r\nlogin session=1 us\r\n x\r\n")
        client.until(rb"b ")
    shared.wait_for("login[-_]failed", since=since)
    assert not re.search(r"^login|\] login session=1|user=root$", shared.log[since:], re.MULTILINE)


def test_the_log_file_takes_the_place_of_twistds_log_and_is_reopened(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    server = Server(tmp_path, edit={"runtime_dir = ": f'log_file = "{path}"\nruntime_dir = '})
    server.log_path = path
    with server:
        assert server.process is not None
        with logged_in(server, "imaps"):
            pass
        eventually(lambda: len(events(path.read_text(), "logout")) == 1)
        assert path.stat().st_mode & 0o007 == 0
        moved = tmp_path / "mail.log.1"
        path.rename(moved)
        server.process.send_signal(signal.SIGUSR1)
        eventually(path.exists)
        with logged_in(server, "imaps"):
            pass
        eventually(lambda: len(events(path.read_text(), "logout")) == 1)
        assert len(events(moved.read_text(), "logout")) == 1
        # A directory that went away loses no line of the old file, nor the server.
        away = tmp_path / "mail.log.2"
        path.rename(away)
        path.mkdir()
        server.process.send_signal(signal.SIGUSR1)
        eventually(lambda: "is not reopened" in away.read_text())
        with logged_in(server, "imaps"):
            pass
        eventually(lambda: len(events(away.read_text(), "logout")) == 2)
        server.stop()
    # Each line once: those before the file was open in both places, those after in the file alone.
    output = server.output_path.read_text()
    starting = r"twistd .* starting up"
    assert len(re.findall(starting, output)) == len(re.findall(starting, moved.read_text())) == 1
    assert len(re.findall(r"ready: \d+ listeners", moved.read_text())) == 1
    assert not re.search(r"ready:|session=|stopping|Shut Down", output)
    assert "Server Shut Down" in away.read_text()
    no_bug(moved.read_text() + away.read_text())


def test_json_has_each_event_with_its_fields_from_all_processes(tmp_path: Path) -> None:
    for workers in (0, 1):
        place = tmp_path / str(workers)
        with Server(place, workers=workers, edit={"runtime_dir = ": 'log_format = "json"\nruntime_dir = '}) as server:
            user, _password = server.user_of("example.test")
            with logged_in(server, "imaps") as client:
                client.send(b"a LOGOUT\r\n")
                client.rest()
            eventually(lambda server=server: '"logout"' in server.log)
            rows = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        events = {row["event"]: row for row in rows if "event" in row}
        assert events["ready"]["listeners"] > 0
        assert {"listening", "login", "logout"} <= events.keys()
        login, logout = events["login"], events["logout"]
        assert (login["user"], login["protocol"], login["tls"]) == (user, "imaps", "TLSv1.3")
        assert logout["session"] == login["session"]
        assert login.get("process") == ("0" if workers else None)
