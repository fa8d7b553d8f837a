"""`mailserver domain add`, `check`, `show`, `reload` on a demonstration's files."""

import os
import re
import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import control, main
from mailserver.cli.control import Answer
from mailserver.config.model import Config
from mailserver.problems import find_problems
from tests.server import make_demonstration


class Site:
    def __init__(self, directory: Path) -> None:
        self.file = directory / "mailserver.toml"
        make_demonstration(directory, 10000)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--config", str(self.file)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_add_serves_a_domain_at_once(site: Site) -> None:
    before = site.file.read_text()
    done = site.run("domain", "add", "Example.NET")
    assert done.exit_code == 0, done.output
    assert "no server is running" in done.output
    assert site.file.read_text().startswith(before), "comments and all"
    config, problems = find_problems(site.file)
    assert config is not None
    assert [str(each) for each in problems] == []
    added = config.domains[-1]
    assert (added.name, added.hosts) == ("example.net", ("mail.example.net",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(added.certificate, added.key)
    assert added.key.stat().st_mode & 0o077 == 0


def test_names_in_other_letters_are_written_as_dns_has_them(site: Site) -> None:
    done = site.run("domain", "add", "B\u00fccher.example", "--host", "*.b\u00fccher.example")
    assert done.exit_code == 0, done.output
    config, _problems = find_problems(site.file)
    assert config is not None
    assert config.domains[-1].name == "xn--bcher-kva.example"
    assert config.domains[-1].hosts == ("*.xn--bcher-kva.example",)
    done = site.run("user", "add", "anna@b\u00fccher.example", "--generate")
    assert "added anna@xn--bcher-kva.example" in done.output


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize(("workers", "owner"), [(0, "nobody"), (2, "root")])
def test_a_key_is_owned_by_who_reads_it(site: Site, workers: int, owner: str) -> None:
    text = re.sub(r"(?m)^user = .*\n", "", site.file.read_text())
    site.file.write_text(text.replace("[server]\n", f'[server]\nworkers = {workers}\nuser = "nobody"\n'))
    done = site.run("domain", "add", "example.net")
    assert done.exit_code == 0, done.output
    key = site.file.parent / "certs" / "mail.example.net.key"
    assert (key.owner(), key.stat().st_mode & 0o777) == (owner, 0o600), done.output


@pytest.mark.parametrize(
    "words",
    [
        ("example.org",),
        ("example.net", "--host", "mail.example.org"),
        ("../evil", "--host", "../evil"),
        ("-",),
        ("example.net", "--host", "a" * 300),
    ],
)
def test_add_refuses_and_leaves_nothing_behind(site: Site, words: tuple[str, ...]) -> None:
    before = site.file.read_text()
    files = sorted(site.file.parent.rglob("*"))
    done = site.run("domain", "add", "--", *words) if words == ("-",) else site.run("domain", "add", *words)
    assert done.exit_code != 0
    assert not isinstance(done.exception, (AttributeError, TypeError, OSError)), done.exception
    assert words[-1] in done.output
    assert site.file.read_text() == before
    assert sorted(site.file.parent.rglob("*")) == files


def test_a_certificate_that_is_there_is_used(site: Site) -> None:
    assert site.run("domain", "add", "example.net").exit_code == 0
    pair = sorted((site.file.parent / "certs").glob("mail.example.net.*"))
    kept = [path.read_bytes() for path in pair]
    text = site.file.read_text()
    site.file.write_text(text[: text.rindex("[[domain]]")])
    done = site.run("domain", "add", "example.net")
    assert "(existed)" in done.output
    assert [path.read_bytes() for path in pair] == kept


def test_a_running_server_takes_it_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, str]] = []

    def answer(config: Config, request: str) -> Answer:
        asked.append((config.server.runtime_dir, request))
        return Answer(True, ("mail.example.net: taken up",))

    monkeypatch.setattr(control, "ask", answer)
    done = site.run("domain", "add", "example.net")
    assert done.exit_code == 0
    assert "mail.example.net: taken up" in done.output
    assert asked == [(site.file.parent / "run", "reload")]


def test_users_of_a_new_domain(site: Site) -> None:
    assert site.run("user", "add", "zoe@example.net", "--generate").exit_code == 1
    assert site.run("domain", "add", "example.net").exit_code == 0
    assert site.run("user", "add", "zoe@example.net", "--generate").exit_code == 0
    near = site.run("user", "add", "zoe@exmaple.net", "--generate")
    assert "did you mean 'example.net'" in near.output


def test_check_prints_everything_at_once(site: Site) -> None:
    assert site.run("check").exit_code == 0
    directory = site.file.parent
    (directory / "users").write_text("anna@example.test:{ROT13}x\n")
    (directory / "certs" / "mail.example.org.key").write_text("nothing")
    site.file.write_text(site.file.read_text() + '\n[imapp]\nx = 1\n[[listener]]\nprotocol = "imap"\nport = 99999\n')
    done = site.run("check")
    assert done.exit_code == 1
    for word in ("ROT13", "line 1", "mail.example.org.key", "imapp", "99999"):
        assert word in done.output, word


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "none.toml")])
    assert done.exit_code == 1
    assert "none.toml" in done.output


def test_show_has_defaults_and_no_secrets(site: Site) -> None:
    done = site.run("show")
    assert done.exit_code == 0
    assert "max_message_size = " in done.output
    assert "example.org" in done.output


def test_reload(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no server is running" in site.run("reload").output
    monkeypatch.setattr(control, "ask", lambda runtime_dir, request: Answer(False, ("mail.example.org: kept",)))
    done = site.run("reload")
    assert done.exit_code == 1
    assert done.output == "mail.example.org: kept\n"
