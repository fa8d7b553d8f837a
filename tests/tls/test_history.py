"""The history of certificates: whole after whatever happens to its file, and bounded."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import apsw
import pytest

from mailserver.tls.keypair.pair import Pair, parse_pair
from mailserver.tls.serving import validation
from mailserver.tls.state.history import FILE, CannotRecord, History
from tests.tls.site import authority

HOST = "mail.example.test"


def new_pair() -> Pair:
    return parse_pair(*validation.issue(authority(), [HOST, "mail.example.org"]))


def add(history: History, pair: Pair, *hosts: str, time: int = 1, **more: object) -> int:
    with history.transaction():
        return history.add(pair, hosts or (HOST,), time=time, reason="a test", origin="added", **more)  # type: ignore[arg-type]


def test_what_was_recorded_is_there_after_a_restart_with_its_key(tmp_path: Path) -> None:
    history = History.open(tmp_path / "state", 10)
    pair = new_pair()
    number = add(history, pair, HOST, "mail.example.org", time=1_700_000_000)
    history.close()
    again = History.open(tmp_path / "state", 10)
    for host in (HOST, "mail.example.org"):
        entry = again.current(host)
        assert entry is not None
        assert (entry.id, entry.time, entry.reason, entry.origin, entry.fingerprint) == (
            number,
            1_700_000_000,
            "a test",
            "added",
            pair.fingerprint,
        )
    read = again.pair(pair.digest)
    assert (read.chain_pem, read.key_pem.reveal()) == (pair.chain_pem, pair.key_pem.reveal())


def test_only_its_owner_can_read_the_keys(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        History.open(tmp_path / "state", 10).close()
    finally:
        os.umask(before)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE).symlink_to(tmp_path / "elsewhere")
    assert not History.open(tmp_path / "state", 10).is_durable
    assert not (tmp_path / "elsewhere").exists()


def test_each_host_keeps_its_last_activations_and_no_key_stays_without_one(tmp_path: Path) -> None:
    history = History.open(tmp_path, 3)
    pairs = [new_pair() for _ in range(6)]
    numbers = [add(history, pair) for pair in pairs]
    assert [entry.id for entry in history.of_host(HOST)] == numbers[:2:-1]
    history.close()
    octets = (tmp_path / FILE).read_bytes()
    assert pairs[5].key_pem.reveal() in octets
    assert pairs[0].key_pem.reveal() not in octets


def test_young_activations_are_kept_beside_the_last_ones_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = 86400
    now = int(time.time())
    history = History.open(tmp_path, 2, 30)
    pair = new_pair()
    add(history, pair, "other.example.test", time=now - 400 * day)
    numbers = [add(history, pair, time=now - age * day) for age in (60, 40, 29, 20, 10, 0)]
    assert [entry.id for entry in history.of_host(HOST)] == numbers[:1:-1]
    assert len(history.of_host("other.example.test")) == 1, "the last one stays, however old"
    monkeypatch.setattr("mailserver.tls.state.history.MOST", 3)
    numbers.append(add(history, pair, time=now))
    assert [entry.id for entry in history.of_host(HOST)] == numbers[:-4:-1]


def test_a_clock_that_jumped_ahead_leaves_as_many_as_are_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History.open(tmp_path, 2, 30)
    pair = new_pair()
    numbers = [add(history, pair, time=int(time.time())) for _ in range(4)]
    monkeypatch.setattr("mailserver.tls.state.history.clock.time", lambda: 4_000_000_000)
    numbers.append(add(history, pair, time=4_000_000_000))
    assert [entry.id for entry in history.of_host(HOST)] == numbers[:-3:-1]


def test_going_back_again_is_one_step_further(tmp_path: Path) -> None:
    history = History.open(tmp_path, 10)
    first, second, third = (new_pair() for _ in range(3))
    numbers = [add(history, pair) for pair in (first, second, third)]
    for wanted, pair in ((numbers[1], second), (numbers[0], first)):
        entry = history.before(HOST)
        assert entry is not None
        assert entry.id == wanted
        add(history, pair, restores=entry.id)
    assert history.before(HOST) is None


def test_a_clock_that_jumps_back_changes_no_order(tmp_path: Path) -> None:
    history = History.open(tmp_path, 10)
    add(history, new_pair(), time=2_000_000_000)
    last = add(history, new_pair(), time=1_000_000_000)
    entry = history.current(HOST)
    assert entry is not None
    assert entry.id == last


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    history = History.open(tmp_path, 10)
    pair = new_pair()

    def fail() -> None:
        with history.transaction():
            history.add(pair, [HOST], time=1, reason="", origin="added")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert history.current(HOST) is None
    assert add(history, pair)


def test_killed_before_the_commit_nothing_is_there_and_after_it_all(tmp_path: Path) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from mailserver.tls.state.history import History
from tests.tls.test_history import new_pair
history = History.open(Path({str(tmp_path)!r}), 10)
with history.transaction():
    history.add(new_pair(), ["a.example.test"], time=1, reason="", origin="added")
with history.transaction():
    history.add(new_pair(), ["b.example.test"], time=1, reason="", origin="added")
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert done.returncode == -9
    history = History.open(tmp_path, 10)
    assert history.problem == ""
    assert history.hosts() == ["a.example.test"]


@pytest.mark.parametrize("damage", ["torn", "overwritten", "not a database"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    history = History.open(tmp_path, 10)
    for _ in range(4):
        add(history, new_pair())
    history.close()
    path = tmp_path / FILE
    octets = path.read_bytes()
    path.write_bytes(
        {
            "torn": octets[: len(octets) * 2 // 3],
            "overwritten": octets[:4096] + b"\xff" * 4096 + octets[8192:],
            "not a database": b"x" * 5000,
        }[damage]
    )
    again = History.open(tmp_path, 10)
    assert "was moved to" in again.problem
    assert again.is_durable
    assert again.current(HOST) is None
    assert (tmp_path / "certificates.damaged").exists()
    assert add(again, new_pair())


def test_a_file_of_a_later_version_is_left_as_it_is(tmp_path: Path) -> None:
    History.open(tmp_path, 10).close()
    connection = apsw.Connection(str(tmp_path / FILE))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    history = History.open(tmp_path, 10)
    assert not history.is_durable
    assert "another version" in history.problem
    assert (tmp_path / FILE).exists()


def test_without_a_directory_it_is_in_memory_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    history = History.open(tmp_path / "state", 10)
    assert not history.is_durable
    assert "certificates are remembered until the server stops" in history.problem
    assert add(history, new_pair())


def test_a_full_disk_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    history = History.open(tmp_path, 100)
    number = add(history, new_pair())
    pages = next(history._connection.execute("PRAGMA page_count"))[0]
    history._connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        nonlocal number
        for _ in range(50):
            number = add(history, new_pair())

    with pytest.raises(CannotRecord, match="no space is left on the disk"):
        fill()
    entry = history.current(HOST)
    assert entry is not None
    assert entry.id == number
    history._connection.execute("PRAGMA max_page_count = 100000")
    assert add(history, new_pair())


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    pairs = [new_pair() for _ in range(2)]
    faults: list[BaseException] = []

    def work(pair: Pair) -> None:
        try:
            history = History.open(tmp_path, 100)
            for _ in range(10):
                add(history, pair)
            history.close()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults
    assert len(History.open(tmp_path, 100).of_host(HOST)) == 20


def test_who_may_not_read_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_named: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("mailserver.tls.state.history.os.open", refuse)
    assert "Permission denied" in History.open(tmp_path, 10).problem
    monkeypatch.undo()
    shutil.rmtree(tmp_path)
