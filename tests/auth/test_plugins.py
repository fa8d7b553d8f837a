"""Back ends found by name, ours and one of somebody else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import attrs
import pytest

from mailserver.auth import plugins
from mailserver.auth.asking import NEW
from mailserver.auth.backends.backend_check import check
from mailserver.auth.backends.file import FileBackend
from mailserver.auth.backends.memory import MemoryBackend
from mailserver.auth.backends.strcred import CheckerBackend
from mailserver.auth.interfaces import IAuthBackendMaker, User
from mailserver.auth.plugins import AuthBackendMaker, BrokenBackend, UnknownBackend, find_backend
from mailserver.config.model import Auth, Config, Mail, Server
from mailserver.notify.watcher import Watcher
from mailserver.types import Secret

ROOT = Path(__file__).parents[2]


class NoHasher:
    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        raise AssertionError("not asked here")


def config(*backends: str) -> Config:
    return Config(
        server=Server(hostname="mail.example.test"),
        mail=Mail(root=Path("/var/mail/domains")),
        auth=Auth(backends=backends),
        domains=(),
        listeners=(),
        source=Path("/etc/mailserver/mailserver.toml"),
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of somebody's plugin files and modules."""
    import twisted.plugins

    directory = tmp_path / "site"
    (directory / "twisted" / "plugins").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setattr(
        twisted.plugins, "__path__", [*twisted.plugins.__path__, str(directory / "twisted" / "plugins")]
    )
    return directory


def test_ours_are_found_by_name(tmp_path: Path) -> None:
    assert isinstance(find_backend(f"file:{tmp_path}/users", NoHasher()), FileBackend)
    assert isinstance(find_backend("memory:anna=secret", NoHasher()), MemoryBackend)
    assert isinstance(find_backend("strcred:memory:anna:secret", NoHasher()), CheckerBackend)


def test_an_unknown_name_says_what_is_known_and_what_is_near() -> None:
    with pytest.raises(UnknownBackend, match=r"'fiel'.*known: directory, file, memory, strcred") as caught:
        find_backend("fiel:/etc/mailserver/users", NoHasher())
    assert caught.value.near == "file"


def test_plugin_files_that_fail_are_counted(elsewhere: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "twisted" / "plugins" / "broken_mail_auth.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(UnknownBackend, match=r"1 plugin file\(s\)"):
        find_backend("ldap:x", NoHasher())


def test_a_module_is_imported_only_when_used_and_its_faults_are_told(elsewhere: Path) -> None:
    makers = "\n".join(
        f"m{n} = AuthBackendMaker({name!r}, {name + '_mod'!r}, 'x')"
        for n, name in enumerate(["missing", "makeless", "picky", "wrong"])
    )
    plugin = elsewhere / "twisted" / "plugins" / "several_mail_auth.py"
    plugin.write_text(f"from mailserver.auth.plugins import AuthBackendMaker\n{makers}\n")
    (elsewhere / "makeless_mod.py").write_text("")
    (elsewhere / "picky_mod.py").write_text("def make_backend(a, h): raise ValueError('needs a host name')\n")
    (elsewhere / "wrong_mod.py").write_text("def make_backend(a, h): return object()\n")
    assert "makeless_mod" not in sys.modules
    for name, reason in (
        ("missing", "missing_mod cannot be imported"),
        ("makeless", "has no make_backend"),
        ("picky", "needs a host name"),
        ("wrong", "IAuthBackend"),
    ):
        with pytest.raises(BrokenBackend, match=reason):
            find_backend(f"{name}:x", NoHasher())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return open('/nowhere/users.json')", "No such file or directory: '/nowhere/users.json'"),
        ("return {}['url']", "KeyError: 'url'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise ValueError('needs a host name')", "needs a host name"),
        ("return object()", "IAuthBackend"),
    ],
)
def test_a_back_end_that_cannot_be_made_is_a_problem_and_no_traceback(elsewhere: Path, body: str, words: str) -> None:
    name = f"fails{abs(hash(body))}"
    plugin = elsewhere / "twisted" / "plugins" / f"{name}_mail_auth.py"
    plugin.write_text(
        f"from mailserver.auth.plugins import AuthBackendMaker\nm = AuthBackendMaker('{name}', '{name}_mod', 'x')\n"
    )
    (elsewhere / f"{name}_mod.py").write_text(f"def make_backend(argument, hasher):\n    {body}\n")
    with pytest.raises(BrokenBackend) as caught:
        find_backend(f"{name}:x", NoHasher())
    assert words in str(caught.value)
    assert caught.value.__cause__ is not None
    (problem,) = check(config(f"{name}:x"))
    assert (problem.place, problem.value, problem.warning) == ("[auth] backends", f'"{name}:..."', False)
    assert words in problem.reason


def test_the_check_of_a_back_end_without_one_finds_nothing_wrong_with_a_sound_one(elsewhere: Path) -> None:
    plugin = elsewhere / "twisted" / "plugins" / "sound_mail_auth.py"
    plugin.write_text(
        "from mailserver.auth.plugins import AuthBackendMaker\nm = AuthBackendMaker('sound', 'sound_mod', 'x')\n"
    )
    (elsewhere / "sound_mod.py").write_text("from mailserver.auth.backends.memory import make_backend\n")
    assert check(config("sound:anna=secret")) == []


@pytest.mark.parametrize("body", ["def check_backend(a):\n    raise KeyError(a)\n", "1 / 0\n", "this is no Python\n"])
def test_a_check_or_an_import_that_fails_is_a_problem(elsewhere: Path, body: str) -> None:
    name = f"odd{abs(hash(body))}"
    plugin = elsewhere / "twisted" / "plugins" / f"{name}_mail_auth.py"
    plugin.write_text(
        f"from mailserver.auth.plugins import AuthBackendMaker\nm = AuthBackendMaker('{name}', '{name}_mod', 'x')\n"
    )
    (elsewhere / f"{name}_mod.py").write_text(body)
    (problem,) = check(config(f"{name}:x"))
    assert problem.place == "[auth] backends"
    assert f"{name}_mod" in problem.reason


def test_the_start_ends_with_the_sentence_of_a_broken_back_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet.task import Clock

    from mailserver.wiring import services

    monkeypatch.setattr(services, "Watcher", lambda *_arguments, **_settings: Mock(spec=Watcher))
    monkeypatch.setattr(services, "LoopingCall", lambda _call: SimpleNamespace())
    monkeypatch.setattr(services, "read_policy", lambda *_a: (SimpleNamespace(rotate_tickets=None), None))
    broken = attrs.evolve(config("memory:anna"), mail=Mail(root=tmp_path))
    with pytest.raises(SystemExit, match=r"mailserver\.toml \[auth\] backends: "):
        services.Services(broken, Clock())


def test_a_users_file_that_is_not_there_is_told_where_it_is_named(tmp_path: Path) -> None:
    (problem,) = check(config(f"file:{tmp_path}/none"))
    assert str(problem) == (
        '/etc/mailserver/mailserver.toml [auth] backends = "file:...":'
        f" {tmp_path}/none: the users file cannot be read: No such file or directory"
    )


def test_check_tells_all_at_once(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("anna:{ROT13}x\n")
    users.chmod(0o600)
    problems = check(config("fiel:/x", f"file:{users}", "file:relative", "memory:hunter2", "strcred:nothing"))
    assert [(each.file, each.place) for each in problems] == [
        ("/etc/mailserver/mailserver.toml", "[auth] backends"),
        (str(users), "line 1 user anna"),
        ("/etc/mailserver/mailserver.toml", "[auth] backends"),
        ("/etc/mailserver/mailserver.toml", "[auth] backends"),
        ("/etc/mailserver/mailserver.toml", "[auth] backends"),
    ]
    assert problems[0].near == "file"
    assert "hunter2" not in "".join(map(str, problems)), "an argument may hold a password"
    assert check(config(f"memory:{'anna=secret'}")) == []


def test_makers_are_three_strings() -> None:
    maker = AuthBackendMaker("x", "y", "z")
    assert IAuthBackendMaker.providedBy(maker)
    makers, _ = plugins._makers()
    assert all(each.usage and isinstance(each.module, str) for each in makers)


def test_memory() -> None:
    backend = find_backend("memory:Anna@example.test=secret,ben=a=b", NoHasher())
    assert backend.find_user("anna@example.test") == User("anna@example.test")
    assert backend.find_user("carla") is None
    assert backend.verify_password(User("ben"), Secret(b"a=b"))
    assert not backend.verify_password(User("ben"), Secret(b"a"))
    assert not backend.verify_password(User("carla"), Secret(b""))
    for argument in ("anna", "anna=", "=x", "a/b=c"):
        with pytest.raises(BrokenBackend):
            find_backend(f"memory:{argument}", NoHasher())


@pytest.mark.slow
def test_a_package_of_somebody_else(tmp_path: Path) -> None:
    """Built and installed by pip from docs/auth-example, then found and used by name in a fresh interpreter."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "docs" / "auth-example", source)
    target = tmp_path / "target"
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
            "--disable-pip-version-check", "--target", str(target), str(source),
        ],
        check=True,
        timeout=120,
    )  # fmt: skip
    # doveadm pw -s SSHA -p secret
    content = {
        "users": {"anna@example.test": "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"},
        "aliases": {"info@example.test": ["anna@example.test"]},
    }
    (tmp_path / "users.json").write_text(json.dumps(content))
    assert sum(1 for line in (source / "mailserver_json_users.py").read_text().splitlines() if line) <= 40
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}

    def mailserver(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mailserver.cli", *words],
            env=environment,
            cwd=tmp_path,
            input="secret\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert any(line.startswith("json ") for line in mailserver("auth", "list").stdout.splitlines())
    tried = mailserver("auth", "conformance", f"json:{tmp_path}/users.json", "anna@example.test")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert (tried.stdout.count("ok "), tried.stdout.count("not offered")) == (14, 8)
    stranger = mailserver("auth", "conformance", f"json:{tmp_path}/users.json", "ben@example.test")
    assert stranger.returncode == 1
    assert "not found" in stranger.stdout
