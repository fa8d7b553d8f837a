"""A private Dovecot on loopback: the oracle beside which ours is compared, and the other half of a migration.

Needs root (Dovecot changes users) and Debian's dovecot packages. Everything lives under one directory.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.server import free_ports

CONFIG = """\
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
listen = 127.0.0.1
protocols = {protocols}
mail_driver = maildir
mail_home = {root}/%{{user | domain}}/%{{user | username}}
mail_path = ~/Maildir
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 10000
auth_allow_cleartext = yes
auth_mechanisms = plain login
auth_failure_delay = 0
{ssl}
passdb passwd-file {{
  passwd_file_path = {dir}/users
}}
userdb static {{
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service anvil {{
  client_limit = 20000
}}
service auth {{
  client_limit = 20000
}}
service imap-login {{
  client_limit = 10000
  process_min_avail = 1
  service_restart_request_count = unlimited
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service imap {{
  process_limit = 10000
}}
service pop3-login {{
  service_restart_request_count = unlimited
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {submission}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
{more}
"""


def available() -> bool:
    """Can one be started here?"""
    return os.getuid() == 0 and shutil.which("dovecot") is not None


class Dovecot:
    """Mail under `root` as `{domain}/{local}/Maildir`, owned by `owner`; `users` maps names to passwords."""

    def __init__(
        self,
        directory: Path,
        root: Path,
        users: dict[str, str],
        *,
        owner: str = "nobody",
        certificate: Path | None = None,
        key: Path | None = None,
        protocols: str = "imap pop3 lmtp",
        more: str = "",
    ) -> None:
        self.dir = directory
        self.root = root
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self.owner = pwd.getpwnam(owner)
        names = ("imap", "imaps", "pop3", "lmtp", "submission")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        ssl = "ssl = no"
        if certificate and key:
            ssl = f"ssl = yes\nssl_server_cert_file = {certificate}\nssl_server_key_file = {key}\n"
        (directory / "users").write_text("".join(f"{user}:{{PLAIN}}{word}::::::\n" for user, word in users.items()))
        self.config = directory / "dovecot.conf"
        self.config.write_text(
            CONFIG.format(
                dir=directory,
                root=root,
                uid=self.owner.pw_uid,
                gid=self.owner.pw_gid,
                ssl=ssl,
                protocols=protocols,
                more=more,
                **self.ports,
            )
        )

    def own(self, path: Path) -> None:
        """Give a tree to the mail's owner."""
        subprocess.run(["chown", "-R", f"{self.owner.pw_uid}:{self.owner.pw_gid}", str(path)], check=True)

    def start(self) -> Self:
        """Until IMAP answers."""
        with (self.dir / "out.log").open("ab") as out:
            self.process = subprocess.Popen(["dovecot", "-F", "-c", str(self.config)], stdout=out, stderr=out)
        end = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            try:
                with socket.create_connection(("127.0.0.1", self.ports["imap"]), 5) as probe:
                    probe.settimeout(5)
                    if probe.recv(4).startswith(b"* OK"):
                        return self
            except OSError:
                time.sleep(0.05)

    @property
    def log(self) -> str:
        return "".join(
            path.read_text(errors="replace")
            for path in (self.dir / "out.log", self.dir / "dovecot.log")
            if path.exists()
        )

    def doveadm(self, *arguments: str, check: bool = True, data: bytes | None = None) -> bytes:
        """What `doveadm` prints; the server need not run."""
        done = subprocess.run(
            ["doveadm", "-c", str(self.config), *arguments], capture_output=True, input=data, timeout=120, check=False
        )
        assert not check or done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def need(packages: str = "dovecot-imapd") -> None:
    """Skip the test where there is none. Raises: AssertionError in CI, which has one."""
    if not available():
        assert not os.environ.get("CI"), "CI has a Dovecot"
        pytest.skip(f"needs root and Debian's {packages}")


@contextmanager
def away(users: dict[str, str], **settings: Any) -> Iterator[Dovecot]:
    """One that does not run yet, with its mail, in a directory that all may enter.

    Below pytest's own, which is root's alone, it could not read as another user.
    """
    with tempfile.TemporaryDirectory(prefix="mailserver-dovecot-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        root = directory / "mail"
        root.mkdir()
        one = Dovecot(directory / "dovecot", root, users, **settings)
        one.own(root)
        yield one
