"""The demonstration: what is made, what is kept, and that it can be used."""

import email
import email.policy
import os
import re
import shlex
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailserver.auth.backends.file import check as check_users
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import parse_line
from mailserver.cli import main
from mailserver.cli.account_stores import DirectoryStore
from mailserver.cli.samples import now, sample_messages
from mailserver.config.kinds import PORTS
from mailserver.config.model import Config
from mailserver.problems import find_problems


def make(directory: Path, *words: str) -> str:
    done = CliRunner().invoke(main, ["demo", "--dir", str(directory), "--port-base", "21000", *words])
    assert done.exit_code == 0, done.output
    return done.output


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def config(directory: Path) -> Config:
    found, problems = find_problems(directory / "mailserver.toml")
    assert found is not None, [str(each) for each in problems]
    return found


def exported(directory: Path) -> list[str]:
    """Names of users."""
    return [entry.name for entry in DirectoryStore(directory / "accounts" / "directory.db").entries()]


@pytest.fixture(autouse=True)
def light_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but `made`, whose passwords are hashed as for everybody, are about other things than passwords."""
    monkeypatch.setattr(schemes, "LIGHT", schemes.Argon2Cost(memory_kib=64, passes=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("demo") / "var" / "demo"
    return directory, make(directory)


def test_everything_is_in_its_place(made: tuple[Path, str]) -> None:
    directory, _ = made
    for name in ("mailserver.toml", "ca.pem", "state/ca/ca.key", "accounts.txt", "accounts/directory.db", "mail", "certs/mail.example.test.pem",
                 "certs/mail.example.test.key", "certs/mail.example.org.pem", "certs/mail.example.org.key"):  # fmt: skip
        assert (directory / name).exists(), name
    for secret in ("state/ca/ca.key", "accounts.txt", "accounts/directory.db", "certs/mail.example.org.key"):
        assert (directory / secret).stat().st_mode & 0o077 == 0, secret


def test_the_configuration_has_no_problem(made: tuple[Path, str]) -> None:
    directory, _ = made
    found, problems = find_problems(directory / "mailserver.toml")
    assert [str(each) for each in problems] == []
    assert found is not None
    assert [domain.name for domain in found.domains] == ["example.test", "example.org"]
    assert {(listener.protocol, listener.port) for listener in found.listeners if not listener.socket} == {
        ("imap", 21143),
        ("imaps", 21993),
        ("pop3", 21110),
        ("pop3s", 21995),
        ("submission", 21587),
        ("submissions", 21465),
        ("lmtp", 21024),
        ("http", 21080),
        ("https", 21443),
        ("http", 21090),
    }
    assert {address for listener in found.listeners for address in listener.addresses} <= {"127.0.0.1", "::1"}
    sockets = {listener.protocol: str(listener.socket) for listener in found.listeners if listener.socket}
    assert sockets == {protocol: str(directory / "run" / protocol) for protocol in ("auth", "lookup")}


def test_no_socket_where_its_path_would_be_too_long(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100)
    make(directory)
    found, problems = find_problems(directory / "mailserver.toml")
    assert found is not None
    assert [str(each) for each in problems] == []
    assert {listener.protocol for listener in found.listeners} == set(PORTS)


def test_three_users_each_whose_printed_passwords_are_right(made: tuple[Path, str]) -> None:
    directory, printed = made
    accounts = dict(line.split(":") for line in (directory / "accounts.txt").read_text().splitlines())
    entries = list(DirectoryStore(directory / "accounts" / "directory.db").entries())
    assert [entry.name for entry in entries] == sorted(accounts)
    assert [sum(name.endswith(domain) for name in accounts) for domain in ("@example.test", "@example.org")] == [3, 3]
    assert len(set(accounts.values())) == 6
    for entry in entries:
        assert entry.stored.startswith("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")
        assert schemes.verify(entry.stored, accounts[entry.name].encode())
        assert re.search(rf"{re.escape(entry.name)} +{re.escape(accounts[entry.name])}\n", printed)


@pytest.mark.parametrize(
    ("domain", "names"),
    [("example.test", ["mail.example.test", "localhost", "127.0.0.1", "::1"]), ("example.org", ["mail.example.org"])],
)
def test_certificates_are_believed_with_the_ca_alone(made: tuple[Path, str], domain: str, names: list[str]) -> None:
    directory, _ = made
    stem = directory / "certs" / f"mail.{domain}"
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(f"{stem}.pem", f"{stem}.key")
    for name in [*names, "mail.example.net"]:
        trusting = ssl.create_default_context(cafile=directory / "ca.pem")
        if name == "mail.example.net":
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                _shake_hands(server_context, trusting, name)
        else:
            _shake_hands(server_context, trusting, name)
            with pytest.raises(ssl.SSLCertVerificationError):
                _shake_hands(server_context, ssl.create_default_context(), name)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join(20)


def test_a_second_run_touches_nothing(made: tuple[Path, str]) -> None:
    directory, printed = made
    read = next((directory / "mail").rglob("new/*"))
    cur = read.parent.parent / "cur" / f"{read.name}:2,S"
    read.rename(cur)
    before = snapshot(directory)
    assert make(directory) == printed
    assert snapshot(directory) == before
    cur.rename(read)


def test_a_domain_that_was_added_later_is_printed_too(tmp_path: Path) -> None:
    make(tmp_path)
    command = ["--config", str(tmp_path / "mailserver.toml")]
    assert CliRunner().invoke(main, ["domain", "add", *command, "example.net"]).exit_code == 0
    printed = make(tmp_path)
    assert re.search(r"\nexample\.net\n  IMAP +host mail\.example\.net  port 21993 ", printed)
    assert "user add NAME@example.net" in printed
    added = CliRunner().invoke(main, ["user", "add", *command, "nina@example.net"], input="secret\n")
    assert added.exit_code == 0, added.output
    printed = make(tmp_path)
    assert "emailaddress=nina@example.net\n  User        nina@example.net\n" in printed


def test_a_password_that_was_changed_is_not_printed_as_if_it_were_right(tmp_path: Path) -> None:
    first = make(tmp_path)
    accounts = dict(line.split(":") for line in (tmp_path / "accounts.txt").read_text().splitlines())
    command = ["user", "password", "anna@example.test", "--config", str(tmp_path / "mailserver.toml")]
    assert CliRunner().invoke(main, command, input="another one\n").exit_code == 0
    again = make(tmp_path)
    assert accounts["anna@example.test"] in first
    assert accounts["anna@example.test"] not in again
    assert "anna@example.test  (changed since)" in again
    assert f"ben@example.test  {accounts['ben@example.test']}" in again


def test_what_was_cut_off_is_taken_up(tmp_path: Path) -> None:
    make(tmp_path)
    before = snapshot(tmp_path)
    (tmp_path / "mailserver.toml").unlink()
    (tmp_path / "certs" / "mail.example.org.pem").unlink()
    (tmp_path / "accounts" / "directory.db").unlink()
    home = tmp_path / "mail" / "example.test" / "anna"
    (home.parent / "ben.making" / "Maildir" / "tmp").mkdir(parents=True)
    home.rename(home.with_name("anna.making"))
    make(tmp_path)
    config(tmp_path)
    after = snapshot(tmp_path)
    assert after["accounts.txt"] == before["accounts.txt"]
    assert after["ca.pem"] == before["ca.pem"]
    assert len(list((home / "Maildir" / "new").iterdir())) == 10
    assert not (home.parent / "anna.making").exists()


def test_another_port_base_moves_the_ports_and_keeps_the_rest(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "mailserver.toml"
    file.write_text(file.read_text() + "\n# mine\n[imap]\nidle_notice = 60.0\n")
    CliRunner().invoke(main, ["demo", "--dir", str(tmp_path), "--port-base", "22000"], catch_exceptions=False)
    found = config(tmp_path)
    assert sorted(listener.port for listener in found.listeners if listener.port) == [
        22024, 22080, 22090, 22110, 22143, 22443, 22465, 22587, 22993, 22995,
    ]  # fmt: skip
    assert found.imap.idle_notice == 60.0
    assert "# mine" in file.read_text()
    head = file.read_text().partition("[server]")[0]
    assert "never" not in head
    assert "another --port-base" in head
    assert "changes the port of every listener" in head


def test_a_demonstration_with_a_users_file(tmp_path: Path) -> None:
    """As it was made by earlier releases, and still is on request: it keeps its kind of back end."""
    printed = make(tmp_path, "--users-file")
    assert [each.use for each in config(tmp_path).auth.backends] == [f"file:{tmp_path}/users"]
    assert check_users(tmp_path / "users") == []
    assert not (tmp_path / "accounts").exists()
    assert len([line for line in printed.splitlines() if line.startswith("swaks ")]) == 1
    first = (tmp_path / "users").read_text()
    make(tmp_path, "--users", "2")
    assert (tmp_path / "users").read_text().startswith(first)
    assert [parse_line(line).name for line in (tmp_path / "users").read_text().splitlines()][6:] == [
        "u000@example.test",
        "u001@example.test",
    ]
    # Interrupted before its configuration was written.
    (tmp_path / "mailserver.toml").unlink()
    make(tmp_path)
    assert [each.use for each in config(tmp_path).auth.backends] == [f"file:{tmp_path}/users"]


def test_a_directory_that_cannot_be_opened_is_a_sentence(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "accounts" / "directory.db").write_bytes(b"no database" * 500)
    done = CliRunner().invoke(main, ["demo", "--dir", str(tmp_path), "--port-base", "21000"])
    assert done.exit_code == 1
    assert "is damaged" in done.output


def test_more_users_are_added_to_those_there(tmp_path: Path) -> None:
    make(tmp_path)
    first = exported(tmp_path)
    CliRunner().invoke(main, ["alias", "remove", "info@example.test", "--config", str(tmp_path / "mailserver.toml")])
    printed = make(tmp_path, "--users", "2")
    assert "2 more accounts" in printed
    assert set(exported(tmp_path)) - set(first) == {"u000@example.test", "u001@example.test"}
    assert "info@example.test" not in printed
    assert "--to team@example.test" in printed
    names = [line.partition(":")[0] for line in (tmp_path / "accounts.txt").read_text().splitlines()]
    assert names[6:] == ["u000@example.test", "u001@example.test"]


def test_settings_and_commands_are_printed_for_each_domain(made: tuple[Path, str]) -> None:
    directory, printed = made
    for host in ("mail.example.test", "mail.example.org"):
        for port in (21993, 21143, 21995, 21110, 21465, 21587):
            assert re.search(rf"host {re.escape(host)} .*port {port}", printed)
    commands = [line for line in printed.splitlines() if line.startswith(("openssl ", "curl ", "swaks "))]
    assert len(commands) == 5
    assert "info@example.test,team@example.test" in shlex.split(commands[-1])
    assert re.search(r"\n  Alias +info@example\.test  leads to anna, ben\n", printed)
    assert re.search(r"\n  Group +team@example\.test  leads to anna, ben, carla\n", printed)
    for command in commands:
        words = shlex.split(command)
        assert str(directory / "ca.pem") in words
        assert any("mail.example." in word for word in words)


def test_the_app_password_is_printed_while_its_file_is_there(tmp_path: Path) -> None:
    said = make(tmp_path)
    user, _, password = (tmp_path / "app-password.txt").read_text().strip().partition(":")
    assert f"--user '{user}:{password}'" in said
    (tmp_path / "app-password.txt").unlink()
    assert password not in make(tmp_path)


def test_the_administrators_command_runs_in_any_directory(made: tuple[Path, str], tmp_path: Path) -> None:
    directory, printed = made
    (line,) = (line for line in printed.splitlines() if "mailserver.cli status" in line)
    words = shlex.split(line)
    assert words[-2:] == ["--config", str(directory / "mailserver.toml")]
    words[words.index("status")] = "show"  # the same, where no server runs
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert 'hostname = "mail.example.test"' in shown.stdout


def test_a_directory_with_odd_letters(tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s "mine" \\ ü'
    printed = make(odd)
    config(odd)
    commands = [line for line in printed.splitlines() if line.startswith(("openssl ", "curl ", "swaks "))]
    assert len(commands) == 5
    assert all(str(odd / "ca.pem") in shlex.split(command) for command in commands)


def test_samples_are_messages_with_both_line_ends() -> None:
    samples = list(sample_messages("anna@example.test", "example.test", now()))
    assert len({sample.data.count(b"\r\n") > 0 for sample in samples}) == 2
    assert [sample.age for sample in samples] == sorted((sample.age for sample in samples), reverse=True)
    identifiers = set()
    for sample in samples:
        assert b"@TO@" not in sample.data
        assert sample.data.count(b"\r\n") in {0, sample.data.count(b"\n")}
        assert max(map(len, sample.data.splitlines())) <= 998
        message = email.message_from_bytes(sample.data, policy=email.policy.default)
        identifiers.add(message["Message-ID"])
        assert "anna@example.test" in message["To"]
    assert len(identifiers) == len(samples)


def test_samples_are_hard_in_the_ways_they_should_be() -> None:
    samples = [
        email.message_from_bytes(sample.data, policy=email.policy.default)
        for sample in sample_messages("anna@example.test", "example.test", now())
    ]
    types = {part.get_content_type() for sample in samples for part in sample.walk()}
    assert {"multipart/alternative", "message/rfc822", "multipart/digest", "multipart/report", "text/calendar"} <= types
    names = {part.get_filename() for sample in samples for part in sample.walk()}
    assert "Vertrag über die Lieferung von Büchern.pdf" in names  # RFC 2231 over three lines
    koi8 = next(sample for sample in samples if "koi8-r" in str(sample["Content-Type"]))
    assert koi8["Subject"] == "Привет из Москвы"
    assert "Привет" in koi8.get_content()
    assert any(not sample.get_payload() for sample in samples)
    attachment = next(
        part for sample in samples for part in sample.walk() if part.get_content_type() == "application/pdf"
    )
    assert len(attachment.get_content()) == 100_000


def test_files_have_the_time_of_their_message(made: tuple[Path, str]) -> None:
    directory, _ = made
    paths = list((directory / "mail" / "example.org" / "emma" / "Maildir" / "new").iterdir())
    assert paths
    for path in paths:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        assert int(os.stat(path).st_mtime) == int(message["Date"].datetime.timestamp())
