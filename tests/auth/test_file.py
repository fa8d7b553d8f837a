"""The passwd-file back end on real files."""

import base64
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from mailserver.auth.asking import NEW
from mailserver.auth.backends import file as backend_file
from mailserver.auth.backends import watched_file
from mailserver.auth.backends.file import FileBackend, check, check_backend, make_backend
from mailserver.auth.interfaces import IAuthBackend, IHashedPasswords, IReadsAhead, IReloadable, User
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.scram_fields import make_fields
from mailserver.cli.users_file import UsersFile
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret
from tests.fakes import run_now

SSHA = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"  # doveadm pw -s SSHA -p secret
ARGON2 = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyonCo/CI4g"


class Now:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class DirectHasher:
    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        return schemes.verify(stored, password.reveal())


class Thread(Executor):
    """A thread that the test steps: at once, or by `run()` while `held`."""

    def __init__(self) -> None:
        self.held = False
        self._tasks: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def task() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        self._tasks.append(task)
        if not self.held:
            self.run()
        return future

    @property
    def waiting(self) -> int:
        return len(self._tasks)

    def run(self) -> None:
        while self._tasks:
            self._tasks.pop(0)()


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Now()
        self.thread = Thread()
        self.backend = FileBackend(path, DirectHasher(), self.clock, self.thread)
        self.age = 1000

    def write(self, text: str) -> None:
        """Replace the file; each version has its own time, long past, so that only the stamp can tell."""
        new = self.path.with_suffix(".new")
        new.write_text(text, "utf-8")
        self.age -= 1
        old = new.stat().st_mtime - self.age
        os.utime(new, (old, old))
        new.rename(self.path)

    def names(self, *names: str) -> list[bool]:
        return [self.backend.find_user(name) is not None for name in names]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "users")


def test_it_provides_what_it_says(site: Site) -> None:
    for interface in (IAuthBackend, IHashedPasswords, IReloadable, IReadsAhead):
        assert verifyObject(interface, site.backend)


def test_finds_users_in_any_case(site: Site) -> None:
    site.write(f"# staff\n\nAnna@Example.Test:{SSHA}:1:1::/home/anna::userdb_addresses=info@example.test\nÅsa:{SSHA}\n")
    assert site.backend.find_user("anna@example.test") == User(
        "anna@example.test", "/home/anna", frozenset({"info@example.test"})
    )
    assert site.backend.find_user("åsa") == User("åsa")
    assert site.names("ben@example.test", "# staff", "") == [False, False, False]


def test_verifies_and_refuses_the_disabled(site: Site) -> None:
    site.write(f"anna:{SSHA}\nben:!{SSHA}\ncarla:{SSHA}::::::nologin\ndora:\n")
    verified = {
        (name, password): run_now(site.backend.verify_password(User(name), Secret(password)))
        for name in ("anna", "ben", "carla", "dora", "nobody")
        for password in (b"secret", b"wrong", b"")
    }
    assert [key for key, right in verified.items() if right] == [("anna", b"secret")]
    assert site.names("ben", "carla") == [True, True], "mail for the disabled is still taken"
    assert site.backend.password_hash(User("anna")) == SSHA
    assert site.backend.password_hash(User("ben")) is None
    assert site.backend.password_hash(User("dora")) == ""


def test_the_first_of_two_lines_counts(site: Site) -> None:
    site.write(f"anna:{SSHA}\nANNA:{ARGON2}\n")
    assert site.backend.password_hash(User("anna")) == SSHA


def test_a_changed_file_is_reread_after_a_second(site: Site) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("anna", "ben") == [True, False]
    site.write(f"ben:{SSHA}\n")
    site.clock.seconds += 0.9
    assert site.names("anna", "ben") == [True, False]
    site.clock.seconds += 0.2
    assert site.names("anna", "ben") == [False, True]


def test_an_unchanged_file_is_not_read_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    original = backend_file.read_content

    def counted(path: Path, parse: Any) -> object:
        nonlocal reads
        reads += 1
        return original(path, parse)

    monkeypatch.setattr(backend_file, "read_content", counted)
    site.write(f"anna:{SSHA}\n")
    for _ in range(10):
        site.names("anna")
        site.clock.seconds += 2
    assert reads == 1


def test_a_change_within_the_tick_of_the_stamp_is_seen(site: Site) -> None:
    # Same inode, same size, same mtime: only reading again can tell.
    site.path.write_text(f"anna:{SSHA}\n")
    before = site.path.stat()
    assert site.names("anna", "elsa") == [True, False]
    with open(site.path, "r+b") as opened:
        opened.write(b"elsa")
    os.utime(site.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    site.clock.seconds += 1.5
    assert site.names("anna", "elsa") == [False, True]


def test_reload_reads_at_once(site: Site) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("ben") == [False]
    site.write(f"ben:{SSHA}\n")
    site.backend.reload()
    assert site.names("ben") == [True]


@pytest.mark.parametrize("first", [True, False])
def test_what_was_read_ahead_is_not_read_again(site: Site, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    site.write("anna:{PLAIN}x\n")
    if not first:
        site.names("anna")
        site.write("ben:{PLAIN}x\n")
    site.backend.read_ahead()
    with monkeypatch.context() as patch:
        patch.setattr(backend_file, "read_content", lambda *_: pytest.fail("read on the reactor's thread"))
        if first:
            assert site.names("anna", "ben") == [True, False]
        else:
            site.backend.reload()
            assert site.names("anna", "ben") == [False, True]


def test_what_was_read_ahead_is_old_when_the_file_has_changed(site: Site) -> None:
    site.write("anna:{PLAIN}x\n")
    site.backend.read_ahead()
    site.write("ben:{PLAIN}x\n")
    site.backend.reload()
    assert site.names("anna", "ben") == [False, True]


def test_reading_ahead_fails_in_silence(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write("anna:{PLAIN}x\n")
    assert site.names("anna") == [True]
    site.path.unlink()
    site.backend.read_ahead()
    assert not caplog.records
    site.backend.reload()
    assert "cannot be read" in caplog.text
    assert site.names("anna") == [True]


def test_the_last_users_answer_while_the_file_is_read_again(site: Site) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("anna", "ben") == [True, False], "the first reading is waited for"
    site.thread.held = True
    site.write(f"ben:{SSHA}\n")
    for _ in range(3):
        site.clock.seconds += 2
        assert site.names("anna", "ben") == [True, False]
    assert site.thread.waiting == 1, "one reading at a time"
    site.thread.run()
    assert site.names("anna", "ben") == [False, True], "at once, not a second later"
    site.clock.seconds += 2
    assert site.names("ben") == [True]
    assert site.thread.waiting == 0, "it is known by now"


def test_a_change_during_a_reading_is_seen_by_the_next(site: Site) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("anna") == [True]
    site.thread.held = True
    site.write(f"ben:{SSHA}\n")
    site.clock.seconds += 2
    site.names("ben")
    site.thread.run()
    site.write(f"carla:{SSHA}\n")
    assert site.names("ben", "carla") == [True, False]
    site.clock.seconds += 2
    site.names("carla")
    site.thread.run()
    assert site.names("ben", "carla") == [False, True]


def test_reload_is_not_undone_by_a_reading_begun_before(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("anna") == [True]
    site.thread.held = True
    site.write(f"ben:{SSHA}\n")
    before = backend_file._read_table(site.path)
    original = backend_file.read_content
    monkeypatch.setattr(backend_file, "read_content", lambda *_: before)
    site.clock.seconds += 2
    site.names("ben")
    monkeypatch.setattr(backend_file, "read_content", original)
    site.write(f"carla:{SSHA}\n")
    site.backend.reload()
    site.thread.run()
    assert site.names("ben", "carla") == [False, True]


def test_a_reading_that_fails_leaves_the_last_users(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("anna") == [True]
    site.thread.held = True
    site.write(f"ben:{SSHA}\n")
    site.clock.seconds += 2
    site.names("anna")
    site.path.unlink()
    site.thread.run()
    assert site.names("anna", "ben") == [True, False]
    assert len(caplog.records) == 1
    site.write(f"carla:{SSHA}\n")
    site.clock.seconds += 2
    site.names("carla")
    site.thread.run()
    assert site.names("anna", "carla") == [False, True]


def test_a_changed_file_is_read_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock = tmp_path / "users", Now()
    path.write_text(f"anna:{SSHA}\n")
    backend = FileBackend(path, DirectHasher(), clock)
    assert backend.find_user("anna")
    readers: list[threading.Thread] = []
    may_read = threading.Event()
    original = backend_file.read_content

    def slow(path: Path, parse: Any) -> object:
        readers.append(threading.current_thread())
        assert may_read.wait(60)
        return original(path, parse)

    monkeypatch.setattr(backend_file, "read_content", slow)
    path.write_text(f"carla:{SSHA}\n")
    clock.seconds += 2
    assert backend.find_user("anna"), "it would hang here if it were read in this thread"
    may_read.set()
    give_up = time.monotonic() + 60
    while not backend.find_user("carla"):
        assert time.monotonic() < give_up
        time.sleep(0.001)
    assert threading.current_thread() not in readers


def test_a_file_that_changes_while_it_is_read_slowly_is_read_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.path.write_text(f"anna:{SSHA}\n")
    started = time.time()
    times = iter([started])
    monkeypatch.setattr(watched_file.time, "time", lambda: next(times, started + 60))
    assert backend_file._read_table(site.path).racy, "it had just been written when reading began"


def test_the_last_good_users_stay(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(f"anna:{SSHA}\n")
    assert site.names("anna") == [True]
    site.path.unlink()
    for _ in range(3):
        site.clock.seconds += 2
        assert site.names("anna") == [True]
    assert len(caplog.records) == 1, "told once, not with every login"
    os.mkfifo(site.path)
    site.clock.seconds += 2
    assert site.names("anna") == [True]
    site.path.unlink()
    site.write(f"ben:{SSHA}\n")
    site.clock.seconds += 2
    assert site.names("anna", "ben") == [False, True]


def test_without_any_file_nobody_is_unknown(site: Site) -> None:
    with pytest.raises(AuthUnavailable):
        site.backend.find_user("anna")
    site.write(f"anna:{SSHA}\n")
    site.clock.seconds += 2
    assert site.names("anna") == [True]


def test_one_bad_line_harms_nobody_else(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.path.write_bytes(b"\xff\xfe:x\nnopassword\n" + f"anna:{SSHA}\nben:{{ROT13}}x\n".encode())
    assert site.names("anna", "ben", "nopassword") == [True, True, False]
    assert "nopassword" in caplog.text


BAD_PASSWORDS = [
    b"{ARGON2ID}!",
    b"{CRYPT}",
    b"junk",
    b"{DES-CRYPT}Hk2sRuDZ5Yl4E",
    b"{SHA512-CRYPT.b64}" + base64.b64encode(b"$6$Gvt6UOFDIHmffbF9$" + b"a" * 86),
    b"{PLAIN}\xff\xfe",
    b"{PBKDF2}$1$\xff$5000$5347221fabc30505db938f9dc82534c6201d7227",
    b"$y$jFT$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
    b"{" * 300,
]


@pytest.mark.parametrize("password", BAD_PASSWORDS)
def test_a_password_that_cannot_be_used_refuses_its_user_alone(site: Site, password: bytes) -> None:
    # Most lines have it: the dummy is made of what most have.
    bad = b"".join(b"bad%d:%b\n" % (number, password) for number in range(5))
    site.path.write_bytes(bad + f"anna:{SSHA}\n".encode())
    assert site.backend.password_hash(User("anna")) == SSHA
    assert run_now(site.backend.verify_password(User("anna"), Secret(b"secret")))
    site.backend.typical_hash()
    assert all(problem.warning for problem in check(site.path))


@given(st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=4), st.binary(max_size=40))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_harms_the_users_of_others(site: Site, lines: list[bytes], password: bytes) -> None:
    fields = password.replace(b"\n", b"").replace(b":", b"")
    good = f"dora@example.test:{SSHA}\n".encode()
    odd = b"odd@example.test:" + fields + b"::::::" + fields + b" scram_sha256=" + fields + b" allow_nets=" + fields
    site.path.write_bytes(b"\n".join([*lines, odd, b"", good]))
    site.backend.reload()
    assert site.backend.password_hash(User("dora@example.test")) == SSHA
    for name in ("SHA-256", "SHA-1"):
        site.backend.typical_scram(name)
        site.backend.scram_keys(User("odd@example.test"), name)
    site.backend.typical_hash()
    site.backend.find_user("odd@example.test")
    assert all(problem.warning for problem in check(site.path))
    list(UsersFile(site.path).entries())


def test_a_line_that_cannot_be_used_keeps_scram_from_nobody(site: Site) -> None:
    keys = make_fields(SSHA, b"secret", ["SHA-256"])
    good = f"anna:{SSHA}::::::" + " ".join(f"{name}={value}" for name, value in keys.items())
    site.write(f"{good}\njunk\nben:{{ROT13}}x\ncarla:{{ARGON2ID}}!\n")
    typical = site.backend.typical_scram("SHA-256")
    assert typical is not None
    assert typical.everybody


def test_finds_the_users_of_an_address(site: Site) -> None:
    site.write(
        "anna@example.test:{PLAIN}x::::::userdb_addresses=info@example.test,Sales@Example.test nologin\n"
        "BEN@example.test:{PLAIN}x::::/home/ben::allow_nets=192.0.2.0/24 userdb_addresses=info@example.test\n"
        "carl@example.test:{PLAIN}userdb_addresses=info@example.test::::::\n"
    )
    for address in ("info@example.test", "sales@example.test", "carl@example.test", ""):
        users = {name for name in ("anna", "ben", "carl") if address in user_addresses(site, f"{name}@example.test")}
        assert site.backend.find_owners(address) == {f"{name}@example.test" for name in users}
    assert site.backend.find_owners("info@example.test") == {"anna@example.test", "ben@example.test"}


def user_addresses(site: Site, name: str) -> frozenset[str]:
    user = site.backend.find_user(name)
    assert user is not None
    return user.addresses


def test_the_networks_of_a_user(site: Site) -> None:
    site.write(f"anna:{SSHA}::::::allow_nets=192.0.2.0/24,local\nben:{SSHA}\ncarla:{SSHA}::::::allow_nets=\n")
    limits = [user.limits.networks for name in ("anna", "ben", "carla") if (user := site.backend.find_user(name))]
    assert limits == [("192.0.2.0/24", "local"), None, ()]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("userdb_quota_rule=*:storage=1G", "userdb_quota_storage_size"),
        ("userdb_quota_storage_grace=1G", "[quota] limit what an account has"),
        ("userdb_mail_path=~/x", "[mail] root and location"),
        ("userdb_sieve_script=x", "no Sieve"),
        ("userdb_foo=1", "it has no effect here"),
    ],
)
def test_fields_of_dovecots_that_have_no_effect_are_told_with_what_there_is(
    tmp_path: Path, field: str, words: str
) -> None:
    path = tmp_path / "users"
    path.write_text(f"anna@example.test:{SSHA}:::::: {field}\n")
    path.chmod(0o640)
    (problem,) = check(path)
    assert problem.value == field.partition("=")[0]
    assert words in problem.reason
    assert problem.warning


def test_check_tells_what_of_the_extra_fields_counts(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(
        f"anna:{SSHA}::::::allow_nets=192.0.2.0/24,nonsense,local userdb_addresses=a@example.test nologin\n"
        f"ben:{SSHA}::::::allow_nets= userdb_quota_rule=*:storage=1G allow_real_nets=192.0.2.0/24\n"
        f"carla:{SSHA}::::::userdb_quota_rule=*:storage=2G\n"
    )
    path.chmod(0o600)
    told = [(each.place, each.value, each.warning) for each in check(path)]
    assert told == [
        ("line 1 user anna", "allow_nets=nonsense", True),
        ("line 2 user ben", "allow_nets=", True),
        ("line 2 user ben", "allow_real_nets", True),
        ("line 2 user ben", "userdb_quota_rule", True),
    ]
    assert "restricts nobody" in check(path)[2].reason
    assert "here and on 1 more lines" in check(path)[3].reason


def test_the_warnings_of_a_large_file_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("".join(f"u{n}:{{ROT13}}x::::::field{n}=x\n" for n in range(5000)))
    path.chmod(0o600)
    problems = check(path)
    assert len(problems) < 200
    assert any("and 4900 more warnings" in each.reason for each in problems)


def test_check_says_what_is_quick_to_guess(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("anna:{MD5}$1$salt$wa8aFuC3rkp5bjoBIGTc41\nben:hunter2\n")
    path.chmod(0o600)
    weak, clear = check(path)
    assert "weak_schemes" in weak.reason
    assert "{PLAIN}" in clear.reason
    assert not clear.near, "no scheme is near to none"


def test_the_dummy_is_like_most_and_never_plain(site: Site) -> None:
    lines = [f"plain{n}:{{PLAIN}}x" for n in range(30)] + [f"a{n}:{ARGON2}" for n in range(9)]
    lines += [f"s{n}:{SSHA}" for n in range(5)]
    site.write("\n".join(lines))
    dummy = site.backend.typical_hash()
    assert dummy is not None
    assert schemes.parse(dummy).kind == "ARGON2ID m=65536,t=3,p=1"
    assert dummy != ARGON2
    site.write("anna:{PLAIN}x\n")
    site.clock.seconds += 2
    assert site.backend.typical_hash() is None


def test_a_hundred_thousand_users_are_not_parsed_at_reading(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    original = backend_file.parse_line

    def counted(line: str) -> object:
        nonlocal parsed
        parsed += 1
        return original(line)

    monkeypatch.setattr(backend_file, "parse_line", counted)
    site.write("".join(f"u{n}@example.test:{SSHA}::::::\n" for n in range(100_000)))
    assert site.names("u99999@example.test", "u100000@example.test") == [True, False]
    assert parsed <= 1500


def test_check_names_line_and_user(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(
        f"anna@example.test:{SSHA}\n"
        "# comment\n"
        "ben@example.test:{SSHA265}x\n"
        "carla:{PLAIN}hunter2\n"
        f"ANNA@example.test:{SSHA}\n"
        "dora\n"
        "a b:{PLAIN}x\n"
        "emil:\n"
        "finn:!\n"
        "gerd:{SSHA}tooshort\n",
    )
    path.chmod(0o640)
    problems = check(path)
    assert [(each.place, each.warning) for each in problems] == [
        ("line 3 user ben@example.test", True),
        ("line 4 user carla", True),
        ("line 5 user anna@example.test", True),
        ("line 6", True),
        ("line 7", True),
        ("line 8 user emil", True),
        ("line 10 user gerd", True),
    ]
    assert problems[0].near == "SSHA256"
    assert "line 1" in problems[2].reason or "line 1 " in problems[2].reason
    assert "hunter2" not in "".join(map(str, problems))
    assert "tooshort" not in "".join(map(str, problems))


def test_check_of_files_that_cannot_be_used(tmp_path: Path) -> None:
    (missing,) = check(tmp_path / "missing")
    assert "No such file" in missing.reason
    os.mkfifo(tmp_path / "fifo")
    (fifo,) = check(tmp_path / "fifo")
    assert "regular" in fifo.reason
    open_to_all = tmp_path / "open"
    open_to_all.write_text("")
    open_to_all.chmod(0o644)
    (wide,) = check(open_to_all)
    assert wide.warning


@pytest.mark.parametrize("argument", ["", "users", "./users"])
def test_the_path_is_absolute(argument: str) -> None:
    with pytest.raises(ValueError, match="absolute"):
        make_backend(argument, DirectHasher())
    with pytest.raises(ValueError, match="absolute"):
        check_backend(argument)
