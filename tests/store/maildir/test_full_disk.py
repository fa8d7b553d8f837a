"""On a small tmpfs that is really full, in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

PREPARE = """\
import contextlib, os, sys
import pytest
from mailserver.errors import NoSpace
from mailserver.store.maildir.disk import reserved_space, safeio
from mailserver.store.maildir.format import keywords, uidlist
from mailserver.store.maildir.home import intent
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.home.folders import Layout
from mailserver.store.maildir.format.keywords import Keywords
from mailserver.store.maildir.disk.lock import AccountLock, dotlock
from mailserver.store.maildir.mailbox.staged_file import StagedFile

root = sys.argv[1] + "/Maildir"
layout = Layout(root)
layout.create("INBOX", 5)
with AccountLock(root), dotlock(root + "/dovecot-uidlist.lock"):
    uidlist.append(root + "/dovecot-uidlist", [(1, "a"), (2, "b")])
keywords.write(root + "/dovecot-keywords", Keywords(("old",)))
for name in ("a", "b"):
    safeio.replace(root + "/cur/" + name, b"x" * 5000)


def read(name):
    with open(root + name, "rb") as file:
        return file.read()


def tree():
    return sorted(os.path.join(top, name) for top, _, names in os.walk(root) for name in names if name != "filler")


def fill():
    with contextlib.suppress(OSError), open(root + "/filler", "ab", 0) as file:
        while True:
            file.write(b"x" * 4096)


def take_inodes():
    with contextlib.suppress(OSError):
        for number in range(1000):
            os.close(os.open(f"{sys.argv[1]}/filler{number}", os.O_CREAT | os.O_WRONLY))
"""


def run(tmp_path, options, code):
    mount = tmp_path / "mount"
    mount.mkdir()
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    script = textwrap.dedent(PREPARE) + textwrap.dedent(code)
    shell = 'mount -t tmpfs -o "$1" none "$2" && exec "$3" -c "$4" "$2"'
    done = subprocess.run(
        [*namespace, "sh", "-c", shell, "sh", options, str(mount), sys.executable, script],
        capture_output=True, text=True, timeout=60, check=False,
        cwd=os.getcwd(), env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert os.listdir(mount) == [], "the mount was private"


def test_nothing_is_torn_when_the_disk_is_full(tmp_path):
    run(
        tmp_path,
        "size=512k",
        """
        fill()
        before = tree()
        known = read("/dovecot-uidlist")
        long = [(uid, "m" * 200) for uid in range(3, 200)]
        with pytest.raises(NoSpace):
            uidlist.append(root + "/dovecot-uidlist", long)
        assert read("/dovecot-uidlist") == known
        with pytest.raises(NoSpace):
            safeio.replace(root + "/dovecot-keywords", b"0 new\\n" * 2000)
        with pytest.raises(NoSpace):
            keywords.write(root + "/dovecot-keywords", Keywords(("new",)))
        assert read("/dovecot-keywords") == b"0 old\\n"
        with pytest.raises(NoSpace):
            intent.write(root, intent.Intent("copy", {}))
        with pytest.raises(NoSpace):
            layout.create("A", 7)
        message = StagedFile(root + "/tmp")
        with pytest.raises(NoSpace):
            for _ in range(100):
                message.write(b"y" * 8192)
            message.sync()
        message.abort()
        assert layout.mailboxes() == ["INBOX"]
        assert tree() == before
        # Reading goes on, and so does the lock; removing gives room.
        with AccountLock(root):
            assert scan.classify([], scan.scan_directory(root + "/cur"))[0].keys() == {"a", "b"}
            safeio.unlink(root + "/cur/a")
            safeio.sync_directory(root + "/cur")
        uidlist.append(root + "/dovecot-uidlist", [(3, "c")])
        assert list(uidlist.read(root + "/dovecot-uidlist").entries) == ["a", "b", "c"]
        """,
    )


def test_nothing_is_half_made_without_inodes(tmp_path):
    run(
        tmp_path,
        "size=2m,nr_inodes=60",
        """
        take_inodes()
        before = tree()
        with pytest.raises(NoSpace):
            StagedFile(root + "/tmp").sync()
        with pytest.raises(NoSpace):
            safeio.replace(root + "/dovecot-keywords", b"0 new\\n")
        with pytest.raises(NoSpace):
            layout.create("A", 7)
        with pytest.raises(NoSpace):
            with dotlock(root + "/dovecot-uidlist.lock"):
                pass
        assert tree() == before
        uidlist.append(root + "/dovecot-uidlist", [(3, "c")])
        with AccountLock(root):
            safeio.unlink(root + "/cur/a")
        safeio.replace(root + "/dovecot-keywords", b"0 new\\n")
        assert read("/dovecot-keywords") == b"0 new\\n"
        """,
    )


def test_the_reserved_space_gives_room_on_a_full_disk(tmp_path):
    run(
        tmp_path,
        "size=20m",
        """
        assert reserved_space.ensure(root)
        fill()
        with pytest.raises(NoSpace):
            keywords.write(root + "/dovecot-keywords", Keywords(("new",)))
        assert reserved_space.release(root)
        keywords.write(root + "/dovecot-keywords", Keywords(("new",)))
        assert not reserved_space.ensure(root), "there is just the room that it gave"
        os.unlink(root + "/filler")
        assert reserved_space.ensure(root)
        """,
    )


def test_a_file_over_the_size_limit_is_no_space(tmp_path):
    """EFBIG, by a limit on the process; SIGXFSZ does not end it."""
    run(
        tmp_path,
        "size=4m",
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        message = StagedFile(root + "/tmp")
        with pytest.raises(NoSpace):
            message.write(b"y" * (1 << 20))
        message.abort()
        assert os.listdir(root + "/tmp") == []
        """,
    )
