from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from mailserver.errors import InUse
from mailserver.store.maildir.disk import lock
from mailserver.store.maildir.disk.lock import AccountLock, MaildropLock
from mailserver.store.maildir.format.dotlocks import Dotlocks

HOST = socket.gethostname()
HOLDER = """
import sys, time
from mailserver.store.maildir.disk.lock import AccountLock, take_dotlock
with AccountLock(sys.argv[1]):
    if len(sys.argv) > 2:
        take_dotlock(sys.argv[2])
    print("held", flush=True)
    sys.stdin.read()
"""
COUNTER = """
import sys
from mailserver.store.maildir.disk.lock import AccountLock, dotlock
root, rounds = sys.argv[1], int(sys.argv[2])
for _ in range(rounds):
    with AccountLock(root, 60), dotlock(root + "/dovecot-uidlist.lock", 60):
        with open(root + "/count", "r+") as file:
            number = int(file.read() or 0)
            file.seek(0)
            file.write(str(number + 1))
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "dovecot-uidlist.lock")


def put(path, text, age=0.0):
    with open(path, "w") as file:
        file.write(text)
    os.utime(path, (time.time() - age, time.time() - age))


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_keeps_another_process_out_until_it_dies(tmp_path):
    holder = start(HOLDER, str(tmp_path))
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InUse), AccountLock(str(tmp_path), 0.05):
        pass
    holder.kill()
    holder.wait()
    with AccountLock(str(tmp_path), 0.05):
        pass
    assert os.listdir(tmp_path) == ["mailserver-lock"], "it is never deleted"


def test_the_lock_keeps_another_thread_out(tmp_path):
    refused = []

    def other():
        try:
            with AccountLock(str(tmp_path), 0.05):
                pass
        except InUse:
            refused.append(True)

    with AccountLock(str(tmp_path)) as held:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == [True]
    with held:
        pass


def test_it_is_free_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), AccountLock(str(tmp_path)):
        _ = 1 / 0
    with AccountLock(str(tmp_path), 0):
        pass


def test_a_forked_child_does_not_keep_it(tmp_path):
    reader, writer = os.pipe()
    with AccountLock(str(tmp_path)):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        with AccountLock(str(tmp_path), 0):
            pass
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_an_account_that_may_only_be_read_is_locked_too(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *mode):
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS if os.path.exists(path) or flags & os.O_CREAT else errno.ENOENT, "no")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    for _ in range(2):
        with AccountLock(str(tmp_path)), pytest.raises(InUse), AccountLock(str(tmp_path), 0):
            pass
        assert os.listdir(tmp_path) in ([], ["mailserver-lock"])
        monkeypatch.undo()
        with AccountLock(str(tmp_path)):
            pass
        monkeypatch.setattr(os, "open", refuse)


def test_a_waiter_gets_it_when_it_is_free(tmp_path):
    entered = threading.Event()

    def other():
        with AccountLock(str(tmp_path)):
            entered.set()

    with AccountLock(str(tmp_path)):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(10)
    thread.join()


def test_two_processes_exclude_each_other(tmp_path):
    (tmp_path / "count").write_text("0")
    processes = [start(COUNTER, str(tmp_path), "60") for _ in range(2)]
    for process in processes:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(60) == 0
    assert (tmp_path / "count").read_text() == "120"
    assert sorted(os.listdir(tmp_path)) == ["count", "mailserver-lock"]


def test_a_dotlock_holds_pid_and_host_and_goes(path):
    with lock.dotlock(path):
        with open(path) as file:
            assert file.read() == f"{os.getpid()}:{HOST}"
        assert os.listdir(os.path.dirname(path)) == ["dovecot-uidlist.lock"]
    assert os.listdir(os.path.dirname(path)) == []


def test_that_of_a_living_process_is_waited_for(path):
    put(path, f"{os.getppid()}:{HOST}")
    with pytest.raises(InUse), lock.dotlock(path, 0.05):
        pass
    with open(path) as file:
        assert file.read() == f"{os.getppid()}:{HOST}"
    assert os.listdir(os.path.dirname(path)) == ["dovecot-uidlist.lock"]


def test_that_of_a_killed_process_is_removed_at_once(tmp_path, path):
    holder = start(HOLDER, str(tmp_path), path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InUse):
        lock.take_dotlock(path, 0.02)
    holder.kill()
    holder.wait()
    with lock.dotlock(path, 0):
        pass


def test_a_dead_pid_and_our_own_are_stale(path):
    for pid in (dead_pid(), os.getpid()):
        put(path, f"{pid}:{HOST}")
        with lock.dotlock(path, 0):
            assert os.path.lexists(path)
        assert not os.path.lexists(path)


def test_a_process_that_started_later_does_not_hold_it(path, monkeypatch):
    put(path, f"{os.getppid()}:{HOST}")
    made = os.lstat(path).st_ctime
    monkeypatch.setattr(lock, "process_start", lambda _pid: made + 5)
    with lock.dotlock(path, 0):
        pass
    put(path, f"{os.getppid()}:{HOST}")
    monkeypatch.setattr(lock, "process_start", lambda _pid: made - 5)
    with pytest.raises(InUse), lock.dotlock(path, 0):
        pass


@pytest.mark.parametrize("text", ["1:elsewhere.example.test", "", "x", "99999999999999:" + HOST, "-1:" + HOST])
def test_any_other_is_stale_only_after_two_minutes_without_change(path, monkeypatch, text):
    put(path, text)
    with pytest.raises(InUse), lock.dotlock(path, 0.02):
        pass
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 119)
    with pytest.raises(InUse), lock.dotlock(path, 0.02):
        pass
    monkeypatch.setattr(time, "time", lambda: now + 121)
    with lock.dotlock(path, 0):
        pass


def test_a_list_that_changes_keeps_the_lock_alive(path, monkeypatch):
    put(path, "1:elsewhere.example.test")
    now = time.time()
    put(path.removesuffix(".lock"), "3")
    os.utime(path.removesuffix(".lock"), (now + 100, now + 100))
    monkeypatch.setattr(time, "time", lambda: now + 150)
    with pytest.raises(InUse), lock.dotlock(path, 0.02):
        pass


@pytest.mark.parametrize("same_inode", [False, True])
def test_a_fresh_lock_made_between_look_and_removal_is_given_back(path, monkeypatch, same_inode):
    put(path, f"{dead_pid()}:{HOST}", age=1)
    real = lock.is_stale

    def slow(path, status):
        found = real(path, status)
        if not same_inode:
            os.rename(path, path + ".kept")
        put(path, f"{os.getppid()}:{HOST}")
        return found

    monkeypatch.setattr(lock, "is_stale", slow)
    assert lock.remove_if_stale(path)
    with open(path) as file:
        assert file.read() == f"{os.getppid()}:{HOST}"


def test_a_lock_that_others_took_over_is_not_removed(path):
    mine = lock.take_dotlock(path)
    os.rename(path, path + ".kept")
    put(path, "1:elsewhere.example.test")
    lock.release_dotlock(path, mine)
    assert os.path.exists(path)


@pytest.fixture
def dotlocks(tmp_path):
    locks = Dotlocks(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    yield locks
    locks.close()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"], "closing leaves nothing"


def test_one_file_is_the_lock_of_one_mailbox_after_the_other(dotlocks, tmp_path):
    for name in ("a", "b"):
        dotlocks.take(str(tmp_path / name))
    [made] = [name for name in os.listdir(tmp_path) if name.startswith("mailserver-dotlock.")]
    for name in ("a", "b"):
        path = tmp_path / name / "dovecot-uidlist.lock"
        assert path.read_text() == f"{os.getpid()}:{HOST}"
        assert path.stat().st_ino == (tmp_path / made).stat().st_ino
        assert dotlocks.is_held(str(tmp_path / name))
        dotlocks.release(str(tmp_path / name))
        assert os.listdir(tmp_path / name) == []
        assert not dotlocks.is_held(str(tmp_path / name))


def test_a_linked_lock_of_another_is_waited_for_and_left_alone(dotlocks, tmp_path):
    path = str(tmp_path / "a/dovecot-uidlist.lock")
    put(path, f"{os.getppid()}:{HOST}")
    with pytest.raises(InUse):
        dotlocks.take(str(tmp_path / "a"), 0.02)
    os.unlink(path)
    dotlocks.take(str(tmp_path / "a"))
    # another program took ours for stale
    os.unlink(path)
    put(path, "1:elsewhere.example.test")
    dotlocks.release(str(tmp_path / "a"))
    with open(path) as file:
        assert file.read() == "1:elsewhere.example.test"


def test_the_linked_file_is_made_anew_where_a_start_has_swept_it(dotlocks, tmp_path):
    dotlocks.take(str(tmp_path / "a"))
    dotlocks.release(str(tmp_path / "a"))
    [made] = tmp_path.glob("mailserver-dotlock.*")
    made.unlink()
    dotlocks.take(str(tmp_path / "a"))
    dotlocks.release(str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError):
        dotlocks.take(str(tmp_path / "none"))


def test_where_no_link_can_be_made_the_lock_has_a_file_of_its_own(dotlocks, tmp_path, monkeypatch):
    real = os.link

    def refuse(old, new, **named):
        if os.path.dirname(old) != os.path.dirname(new):
            raise OSError(errno.EXDEV, "another file system")
        real(old, new, **named)

    monkeypatch.setattr(os, "link", refuse)
    dotlocks.take(str(tmp_path / "b"))
    assert (tmp_path / "b/dovecot-uidlist.lock").read_text() == f"{os.getpid()}:{HOST}"
    dotlocks.release(str(tmp_path / "b"))
    assert os.listdir(tmp_path / "b") == []


def test_a_holder_knows_whether_it_has_been_alone(tmp_path):
    one, two = AccountLock(str(tmp_path)), AccountLock(str(tmp_path))
    told = []
    for each in (one, one, two, two, one, one):
        with each:
            told.append(each.alone)
    assert told == [False, True, False, True, False, True]
    lock.disturb(str(tmp_path))
    with one:
        assert not one.alone
    with one:
        assert one.alone


def test_on_a_full_disk_nobody_believes_to_have_been_alone(tmp_path, monkeypatch):
    one, two = AccountLock(str(tmp_path)), AccountLock(str(tmp_path))
    with one:
        pass

    def full(*_args):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with two:
            assert not two.alone
    with one:
        assert not one.alone


def test_a_mailbox_that_is_gone_has_no_lock(tmp_path):
    with pytest.raises(FileNotFoundError), lock.dotlock(str(tmp_path / "none/dovecot-uidlist.lock")):
        pass


@pytest.mark.parametrize("text", [b"", b"\0" * 20, b"\n"])
def test_one_without_content_from_before_the_machines_start_is_stale(path, monkeypatch, text):
    with open(path, "wb") as file:
        file.write(text)
    assert not lock.remove_if_stale(path)
    monkeypatch.setattr(lock, "boot_time", lambda: time.time() + 60)
    assert lock.remove_if_stale(path)
    assert not os.path.exists(path)


def test_another_hosts_from_before_the_machines_start_is_not(path, monkeypatch):
    with open(path, "wb") as file:
        file.write(b"12:elsewhere.example.net")
    monkeypatch.setattr(lock, "boot_time", lambda: time.time() + 60)
    assert not lock.remove_if_stale(path)


MAILDROP_HOLDER = """
import sys
from mailserver.store.maildir.disk.lock import MaildropLock
held = MaildropLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_the_maildrop_that_another_process_holds_is_free_once_that_is_killed(tmp_path):
    holder = start(MAILDROP_HOLDER, str(tmp_path))
    try:
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(InUse):
            MaildropLock(str(tmp_path))
        assert time.monotonic() - began < lock.WAIT / 2, "it is not waited for"
        with AccountLock(str(tmp_path)):
            pass
    finally:
        holder.kill()
        holder.communicate()
    MaildropLock(str(tmp_path)).release()
    assert (tmp_path / lock.MAILDROP_FILE_NAME).exists(), "it is never deleted"


def test_a_maildrop_in_which_nothing_may_be_made_is_locked_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "cur").mkdir()
    opening = os.open

    def refuse(path, flags, *mode):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opening(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    held = MaildropLock(str(tmp_path))
    with pytest.raises(InUse):
        MaildropLock(str(tmp_path))
    with AccountLock(str(tmp_path), 0.1):
        pass  # which the directory itself stands for
    held.release()
