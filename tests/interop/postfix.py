"""A private Postfix on loopback, as Debian packages it: smtpd in the chroot of its queue directory.

It receives by SMTP at `port`. What is added to main.cf decides about logins, addresses and delivery; a socket for it is
`queue / "private" / "auth"`, which main.cf calls `private/auth`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.interop.debian_packages import library_path, unpacked
from tests.interop.mta import USERS, TransferAgent
from tests.server import free_ports

MAIN_CF = """\
compatibility_level = 3.10
queue_directory = {dir}/queue
data_directory = {dir}/data
command_directory = {package}/usr/sbin
daemon_directory = {package}/usr/lib/postfix/sbin
shlib_directory = {package}/usr/lib/postfix
meta_directory = {package}/usr/share/postfix
sendmail_path = {package}/usr/sbin/sendmail
newaliases_path = {package}/usr/sbin/sendmail
mailq_path = {package}/usr/sbin/sendmail
import_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH={libraries}
maillog_file = /dev/stdout
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.test
mydestination =
mynetworks =
alias_maps =
alias_database =
local_recipient_maps =
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_error_sleep_time = 0
"""
MASTER_CF = """\
127.0.0.1:{port} inet n - y - 20 smtpd
pickup unix n - y 60 1 pickup
cleanup unix n - y - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - y - - trivial-rewrite
bounce unix - - y - 0 bounce
defer unix - - y - 0 bounce
trace unix - - y - 0 bounce
verify unix - - y - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - y - - smtp
lmtp unix - - y - - lmtp
error unix - - y - - error
retry unix - - y - - error
anvil unix - - y - 1 anvil
tlsmgr unix - - y 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
QUEUE_DIRECTORIES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop"),
    *("pid", "private", "public", "saved", "trace"),
)


class Postfix(TransferAgent):
    """One that is started by `with`, or by `start`."""

    def __init__(self, main_cf: str = "", master_cf: str = "") -> None:
        """Lines that are added; {dir} and {queue} in main.cf are its directory and queue directory."""
        super().__init__(unpacked("postfix"), free_ports(1)[0])
        self.queue = self.dir / "queue"
        self.config = self.dir / "config"
        self.config.mkdir()
        user, group = USERS["postfix"], USERS["postdrop"]
        for path in (self.dir / "data", self.queue, *(self.queue / name for name in QUEUE_DIRECTORIES)):
            path.mkdir()
            if path not in (self.queue, self.queue / "pid"):
                path.chmod(0o700)
                os.chown(path, user, -1)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            os.chown(self.queue / name, user, group)
            (self.queue / name).chmod(mode)
        self.set_config(main_cf)
        (self.config / "master.cf").write_text(MASTER_CF.format(port=self.port) + master_cf)

    def set_config(self, main_cf: str) -> None:
        """Write main.cf with those lines behind the fixed ones; `reload` has a running Postfix read it."""
        fixed = MAIN_CF.format(dir=self.dir, package=self.package, libraries=library_path(self.package))
        more = main_cf.replace("{dir}", str(self.dir)).replace("{queue}", str(self.queue))
        (self.config / "main.cf").write_text(fixed + more)

    @property
    def private(self) -> Path:
        """The directory for sockets that smtpd reaches in its chroot."""
        return self.queue / "private"

    def start(self) -> None:
        """As the parent."""
        self.start_command(self.package / "usr/lib/postfix/sbin/master", "-c", self.config, "-s")

    def reload(self) -> None:
        """Have it read its configuration anew."""
        self.tool("postfix", "reload", check=True)

    def tool(self, name: str, *arguments: object, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run postmap, postqueue or another of its commands."""
        return self.run(self.package / "usr/sbin" / name, "-c", self.config, *arguments, check=check)


def postmap_query(postfix: Postfix, table: str, key: str) -> str | None:
    """What a table answers for a key; None where the key is not found. A failed look-up raises."""
    done = postfix.tool("postmap", "-q", key, table)
    if done.returncode == 1 and not done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")
