"""`twistd mailserver`: options -> configuration -> service."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from mailserver.config import load
from mailserver.config.model import Config
from mailserver.net.log.log_file import LogFile, make_log_file
from mailserver.net.log.process_log import ProcessLog
from mailserver.net.service import systemd
from mailserver.net.service.process_identity import give_runtime_dir, give_state_dir
from mailserver.net.workers.zygote_start import StartedZygote, start_zygote

if TYPE_CHECKING:
    from mailserver.net.service.service import ServiceProcess
    from mailserver.net.workers.master import MasterService


class Options(usage.Options):
    """What may stand behind `twistd mailserver`."""

    optParameters = [["config", "c", "/etc/mailserver/mailserver.toml", "The configuration file."]]  # noqa: N815
    optFlags = [  # noqa: N815
        ["check", None, "Check the configuration and all that it names, print every problem, and exit."],
        ["show", None, "Print the effective configuration, without secrets, and exit."],
    ]

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        from mailserver.version import version_line  # noqa: PLC0415 - a start does not need it

        print(version_line())  # noqa: T201
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """The service, or an exit with every problem of the configuration."""
    path = Path(options["config"]).absolute()
    twistd = options.parent
    zygote: StartedZygote | None = None
    try:
        # Before any process is started: none but this one is to have them.
        handed_over = systemd.take_sockets()
    except OSError as error:
        raise SystemExit(f"systemd hands over what is no socket: {error}") from error
    if not options["check"] and not options["show"] and (readable := load.read(path).config) is not None:
        try:
            give_runtime_dir(readable.server)
        except OSError as error:
            raise SystemExit(f"cannot make the runtime_dir: {error}") from error
        if not worker_count(readable):
            with contextlib.suppress(OSError):  # told as a warning
                give_state_dir(readable.server)
        elif twistd is not None and _is_settled(twistd):
            with contextlib.suppress(OSError):  # told when the master tries again
                zygote = start_zygote()
    from mailserver.problems import find_problems  # noqa: PLC0415 - beside the zygote

    config, problems = find_problems(path, starting=not options["check"])
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201 - before there is a log
    if options["check"]:
        if config is not None:
            from mailserver.config.socket_rights import socket_lines  # noqa: PLC0415 - a start does not need it

            for line in (*socket_lines(config), f"{path}: no errors"):
                print(line)  # noqa: T201
        raise SystemExit(1 if config is None else 0)
    if config is None:
        if zygote is not None:
            zygote.end()
        raise SystemExit(1)
    if options["show"]:
        from mailserver.config.show import show  # noqa: PLC0415 - a start needs no writer of TOML

        sys.stdout.write(show(config))
        raise SystemExit(0)
    from twisted.internet import reactor  # noqa: PLC0415 - installed by twistd by now

    daemon = twistd is not None and not twistd["nodaemon"]
    log_file = (
        make_log_file(config.server.log_file, twistd, config.server.log_format)
        if config.server.log_file is not None
        else None
    )
    workers = worker_count(config)
    service: ServiceProcess
    if not workers:
        from mailserver.net.service.one_process import MailService  # noqa: PLC0415
        from mailserver.wiring.services import Services  # noqa: PLC0415 - a master needs none of what serves

        service = MailService(
            config, lambda current: Services(current, reactor), reactor, daemon=daemon, log_file=log_file
        )
    else:
        service = _master(config, reactor, workers, twistd, daemon=daemon, log_file=log_file, zygote=zygote)
    from mailserver.net.listeners.systemd_sockets import SystemdSockets, UnusableSocket  # noqa: PLC0415 - beside the zygote

    try:
        service.systemd_sockets = SystemdSockets(handed_over)
    except UnusableSocket as error:
        raise SystemExit(str(error)) from error
    if twistd is not None and not daemon and _logs_to_output(twistd):
        # Who does not read our output must not hold us up.
        service.output_log = ProcessLog("", relayed=False, log_format=config.server.log_format)
    return service


def _master(
    config: Config,
    reactor: Any,
    workers: int,
    twistd: Mapping[str, Any] | None,
    *,
    daemon: bool,
    log_file: LogFile | None,
    zygote: StartedZygote | None,
) -> MasterService:
    from mailserver.net.workers.master import MasterService  # noqa: PLC0415
    from mailserver.wiring.reload_check import check_reload, read_policy  # noqa: PLC0415 - beside the zygote

    return MasterService(
        config,
        reactor,
        shards=workers,
        make_policy=lambda: read_policy(config),
        check_reload=check_reload,
        relayed=daemon or (twistd is not None and not _logs_to_output(twistd)),
        daemon=daemon,
        log_file=log_file,
        zygote=zygote,
    )


def worker_count(config: Config) -> int:
    """How many workers there are to be; 0 for one process that does everything."""
    return usable_processors() if config.server.workers == "auto" else int(config.server.workers)


def usable_processors() -> int:
    """Those that this process may run on, and that its control group has time for; at least 1."""
    processors = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            processors = min(processors, -(-int(quota) // int(period)))
    return max(1, processors)


def _logs_to_output(twistd: Mapping[str, Any]) -> bool:
    return twistd.get("logfile") in {None, "-"} and not twistd.get("syslog") and twistd.get("logger") is None


def _is_settled(twistd: Mapping[str, Any]) -> bool:
    """Whether twistd changes nothing of this process any more that a child is to have: its user, place and output."""
    to_come = any(twistd.get(name) is not None for name in ("uid", "gid", "chroot", "umask"))
    return bool(twistd["nodaemon"]) and not to_come and twistd["rundir"] == "." and _logs_to_output(twistd)
