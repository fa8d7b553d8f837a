"""A change of certificates that is killed at every write and sync of its file: there whole afterwards, or not at all.

The process is forked, and its files go through a layer that ends it with SIGKILL at one of these moments; a write may be
torn.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from mailserver.tls.acme import acme_state
from mailserver.tls.changes.transaction import ChangeRefused, RecordedChange, Transaction
from mailserver.tls.serving import validation
from mailserver.tls.state.history import FILE
from mailserver.wiring.reload_check import read_policy
from tests.tls.site import Site, authority
from tests.tls.test_transaction import ORG, TEST, Server

MOST = 200


class Killing(apsw.VFS):
    """Counts what changes files, and ends the process at the one that has come; or says then that the disk is full."""

    def __init__(self, last: int, *, torn: bool = False, full: bool = False) -> None:
        self.left = last
        self.torn = torn
        self.full = full
        super().__init__("killing", base="unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return KillingFile(self, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        self.count()
        super().xDelete(name, sync)

    def room(self, more: bool) -> None:
        """Raises: FullError, where a file would grow."""
        if self.full and more:
            self.left -= 1
            if self.left < 0:
                raise apsw.FullError

    def count(self, tear: Callable[[], None] = lambda: None) -> None:
        if self.full:
            return
        self.left -= 1
        if self.left < 0:
            if self.torn:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)


class KillingFile(apsw.VFSFile):
    """One of its files."""

    def __init__(self, killing: Killing, name: Any, flags: list[int]) -> None:
        self.killing = killing
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        def tear() -> None:
            apsw.VFSFile.xWrite(self, data[: len(data) // 2], offset)

        self.killing.room(offset + len(data) > self.xFileSize())
        self.killing.count(tear)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.killing.count()
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self.killing.count()
        super().xTruncate(size)


def new_pair() -> tuple[bytes, bytes]:
    return validation.issue(authority(), [ORG, TEST])


def killed(last: int, torn: bool, work: Callable[[], object]) -> bool:
    """Was the process ended before it was done?"""
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            layer = Killing(last, torn=torn)
            work()
            layer.unregister()
            status = 0
        finally:
            os._exit(status)
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


CHANGES: dict[str, Callable[[Transaction, tuple[bytes, bytes]], RecordedChange]] = {
    "add": lambda one, pair: one.offer([ORG, TEST], *pair, reason="a test", origin="added"),
    "roll back": lambda one, _pair: one.roll_back(TEST),
}


@pytest.mark.parametrize(("change", "torn"), [("add", True), ("roll back", False)])
def test_a_change_that_is_killed_is_whole_or_not_there(tmp_path: Path, change: str, torn: bool) -> None:
    site = Site(tmp_path).add("example.test", [TEST]).add("example.org", [ORG])
    site.managed |= {"example.test", "example.org"}
    server = Server(site)
    for _ in range(2):
        server.add(new_pair(), ORG, TEST)
    server.history.close()
    state = server.config.server.state_dir
    shutil.copytree(state, tmp_path / "before")
    pair = new_pair()

    def served() -> tuple[str, ...]:
        server.start()
        assert server.history.problem == ""
        assert (state / FILE).stat().st_mode & 0o777 == 0o600
        seen = tuple(server.seen(host) for host in (ORG, TEST))
        server.history.close()
        return seen

    def work() -> None:
        again = Server(site)
        again.change(lambda one: CHANGES[change](one, pair))
        again.history.close()

    old = served()
    seen = set()
    for last in range(MOST):
        shutil.rmtree(state)
        shutil.copytree(tmp_path / "before", state)
        was_killed = killed(last, torn, work)
        seen.add(served())
        if not was_killed:
            break
    else:
        pytest.fail("it is never done")
    assert last > 5, "a change writes and syncs"
    new = served()
    assert seen <= {old, new}, "one host has changed without the other"
    assert old != new
    # What was left holds up nothing.
    server.start()
    assert server.add(new_pair(), ORG, TEST).whole


def test_a_disk_that_is_full_at_any_step_leaves_what_was_and_takes_the_same_later(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", [TEST]).add("example.org", [ORG])
    site.managed |= {"example.test", "example.org"}
    layer = Killing(MOST, full=True)
    try:
        server = Server(site)
        server.add(new_pair(), ORG, TEST)
        refusals = 0
        for last in range(MOST):
            old, pair = server.seen(TEST), new_pair()
            layer.left = last
            told: list[ChangeRefused] = []
            try:
                server.add(pair, ORG, TEST)
            except ChangeRefused as refused:
                told.append(refused)
            if not told:
                break
            refusals += 1
            assert told[0].later
            assert "no space is left on the disk" in str(told[0])
            assert (server.seen(ORG), server.seen(TEST)) == (old, old)
            # A start meanwhile serves as before.
            layer.left = 0
            server.restart()
            assert (server.seen(ORG), server.seen(TEST)) == (old, old)
            layer.left = MOST
            server.add(pair, ORG, TEST)
            assert server.seen(ORG) == server.seen(TEST) != old
        assert refusals > 2
    finally:
        layer.unregister()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    site = Site(tmp_path).add("example.test", [TEST]).add("example.org", [ORG])
    site.managed |= {"example.test", "example.org"}
    return Server(site)


def test_commands_and_starts_at_once_are_one_after_the_other(server: Server) -> None:
    """As `mailserver cert add` does it where no server runs, in four processes, while servers begin."""
    config = server.config
    server.history.close()
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                for _ in range(3):
                    policy, activation = read_policy(config)
                    now = dt.datetime.now(dt.UTC)
                    one = Transaction(activation, policy, config, now)
                    assert one.offer([ORG, TEST], *new_pair(), reason="a test", origin="added").whole
                    activation.history.close()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    server.start()
    assert server.history.problem == ""
    added = [[entry.id for entry in server.history.of_host(host) if entry.origin == "added"] for host in (ORG, TEST)]
    assert added[0] == added[1]
    assert len(added[0]) == 12, "none was lost, and none came back"
    assert server.seen(ORG) == server.seen(TEST)


@pytest.mark.parametrize("instead", ["nothing", "a copy", "an empty directory"])
def test_a_state_directory_that_is_moved_away_is_told_and_served_on(server: Server, instead: str) -> None:
    server.add(new_pair(), ORG, TEST)
    state = server.config.server.state_dir
    before, old = server.seen(TEST), state.with_name("moved")
    state.rename(old)
    if instead == "a copy":
        shutil.copytree(old, state)
    elif instead == "an empty directory":
        state.mkdir()
    with pytest.raises(ChangeRefused) as refused:
        server.add(new_pair(), ORG, TEST)
    assert "cannot be used" in str(refused.value)
    assert server.seen(TEST) == server.seen(ORG) == before
    if instead != "nothing":
        shutil.rmtree(state)
    old.rename(state)
    assert server.add(new_pair(), ORG, TEST).whole
    server.restart()
    assert server.seen(TEST) == server.seen(ORG) != before


def test_a_link_to_the_state_directory_is_as_good(server: Server) -> None:
    state = server.config.server.state_dir
    server.history.close()
    state.rename(state.with_name("elsewhere"))
    state.symlink_to("elsewhere")
    server.start()
    assert server.add(new_pair(), ORG, TEST).whole
    server.restart()
    assert server.history.problem == ""
    assert server.origin(TEST) == "added"


def test_no_file_with_a_key_is_anybody_elses_at_any_step(tmp_path: Path) -> None:
    """Whatever the umask, and while a change is under way."""
    umask = os.umask(0)
    modes: set[tuple[str, int]] = set()
    try:
        site = Site(tmp_path).add("example.test", [TEST])
        site.managed.add("example.test")
        server = Server(site)
        state = server.config.server.state_dir

        class Looking(Killing):
            def count(self, tear: Callable[[], None] = lambda: None) -> None:
                modes.update((path.name, path.stat().st_mode & 0o777) for path in state.iterdir())

        server.history.close()
        layer = Looking(0)
        try:
            server.start()
            server.add(new_pair(), TEST)
            acme_state.account_key(state, "https://ca.test/dir")
            acme_state.next_account_key(state, "https://ca.test/dir")
        finally:
            layer.unregister()
    finally:
        os.umask(umask)
    assert {name for name, _mode in modes} == {
        "certificates.sqlite",
        "certificates.sqlite-journal",
        "acme.sqlite",
        "acme.sqlite-journal",
    }
    assert {mode for _name, mode in modes} == {0o600}
    assert state.stat().st_mode & 0o777 == 0o700
