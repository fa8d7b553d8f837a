"""A private Exim on loopback, as Debian's exim4-daemon-heavy has it, which speaks Dovecot's authentication protocol."""

from __future__ import annotations

import os

from tests.interop.debian_packages import unpacked
from tests.interop.mta import USERS, TransferAgent
from tests.server import free_ports

CONFIG = """\
exim_path = {package}/usr/sbin/exim4
primary_hostname = mx.example.test
spool_directory = {dir}/spool
log_file_path = {dir}/spool/%slog
pid_file_path = {dir}/spool/exim.pid
daemon_smtp_ports = {port}
local_interfaces = <; 127.0.0.1
keep_environment = LD_LIBRARY_PATH
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 100
smtp_accept_max_nonmail = 1000
"""


class Exim(TransferAgent):
    """One that is started by `with`, or by `start`."""

    def __init__(self, config: str = "") -> None:
        """Lines that are added; {dir} is its directory, which its user can write."""
        super().__init__(unpacked("exim4-daemon-heavy"), free_ports(1)[0])
        self.config = self.dir / "exim.conf"
        (self.dir / "spool").mkdir()
        os.chown(self.dir / "spool", USERS["Debian-exim"], USERS["Debian-exim"])
        fixed = CONFIG.format(dir=self.dir, package=self.package, port=self.port)
        self.config.write_text(fixed + config.replace("{dir}", str(self.dir)))

    def start(self) -> None:
        """As the parent."""
        self.start_command(self.package / "usr/sbin/exim4", "-bdf", "-C", self.config)

    @property
    def log(self) -> str:
        """As the parent."""
        logs = [*(self.dir / "spool").glob("*log")]
        return super().log + "".join(path.read_text(errors="replace") for path in logs)
