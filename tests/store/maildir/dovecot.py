"""A private Dovecot, for one home directory, through doveadm: no daemon, no port.

Dovecot gives root no mail. Run by root, the tests let it be `nobody`, and give it the files before each command.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

import pytest

needs_dovecot = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("doveadm") is None and os.environ.get("CI") != "true", reason="Dovecot is not installed"
    ),
]

CONFIGURATION = """\
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
base_dir = {top}/run
state_dir = {top}/run
log_path = {top}/log
mail_driver = maildir
mail_path = ~/Maildir
mail_home = {top}/home
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
first_valid_gid = 1
protocols =
ssl = no
namespace inbox {{
  inbox = yes
  separator = /
}}
{further}
"""


class Dovecot:
    """`top` must be a directory that anybody may enter; `further` is added to the configuration."""

    def __init__(self, top: str, further: str = "") -> None:
        self.top = top
        self.root = os.path.join(top, "home/Maildir")
        owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._uid, self._gid = owner.pw_uid, owner.pw_gid
        for name in ("run", "home"):
            os.mkdir(os.path.join(top, name))
        with open(os.path.join(top, "conf"), "w") as file:
            file.write(CONFIGURATION.format(top=top, user=self._uid, group=self._gid, further=further))
        os.chmod(top, 0o755)
        self.give()

    def give(self) -> None:
        """Let Dovecot own all files."""
        if os.geteuid() == 0:
            for directory, _, files in os.walk(self.top):
                for path in [directory, *(os.path.join(directory, name) for name in files)]:
                    # Another process may be renaming it.
                    with contextlib.suppress(FileNotFoundError):
                        os.chown(path, self._uid, self._gid, follow_symlinks=False)

    def fork(self, work: Callable[[], None]) -> int:
        """Run it in a process that may read what Dovecot may; the pid. It exits with 0 if all went well."""
        child = os.fork()
        if child:
            return child
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(self._gid)
                os.setuid(self._uid)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def start(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """A doveadm command of one or two words, its options and arguments."""
        count = 2 if words[0] in {"mailbox", "flags"} else 1
        command = ["doveadm", "-c", f"{self.top}/conf", *options, *words[:count], "--no-userdb-lookup", *words[count:]]
        environment = {"PATH": os.environ["PATH"], "USER": "someone", "HOME": f"{self.top}/home"}
        self.give()
        owner: dict[str, Any] = {"user": self._uid, "group": self._gid, "extra_groups": []} if os.geteuid() == 0 else {}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", **owner)

    def run(self, *words: str, data: bytes = b"", options: tuple[str, ...] = ()) -> str:
        """Its output; it must succeed and say nothing on stderr, nor in its log."""
        process = self.start(*words, options=options)
        out, err = process.communicate(data, timeout=60)
        assert process.returncode == 0, err
        assert err == b""
        log = os.path.join(self.top, "log")
        if os.path.exists(log):
            with open(log, "rb") as file:
                assert file.read() == b""
        return out.decode()

    def fetch(self, fields: str, mailbox: str = "INBOX") -> list[list[str]]:
        """Values by message."""
        lines = self.run("fetch", fields, "mailbox", mailbox, "all", options=("-f", "tab")).splitlines()
        return [line.split("\t") for line in lines[1:]]

    def status(self, mailbox: str = "INBOX") -> dict[str, str]:
        """UIDVALIDITY, UIDNEXT, GUID and count."""
        words = self.run(
            "mailbox", "status", "messages uidnext uidvalidity guid", mailbox, options=("-f", "flow")
        ).split()
        return dict(word.split("=", 1) for word in words if "=" in word)
