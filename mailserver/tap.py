"""`twistd mailserver`: start the server. `makeService` does it in this order:

1. Take the sockets that systemd hands over, before any child process could inherit them.
2. As root, make directories for the configured user. With workers, start the zygote (`net.workers.zygote_start`), which
   loads its modules while this process does the rest.
3. Check the configuration and everything that it names, and print every problem. `--check` and `--show` end here.
4. Make the service: `net.service.single_process` without workers, `net.workers.master` with workers.

twistd then calls the service's `privilegedStartService`, which binds, and `startService`, which becomes the configured
user and serves; both are in `net.service.service`.

A function below imports what only its step needs: the master loads nothing of what serves, and the zygote starts first.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from mailserver.config import load
from mailserver.config.model import Config
from mailserver.net.log.log_file import make_log_file
from mailserver.net.log.process_log import ProcessLog
from mailserver.net.service import systemd
from mailserver.net.service.process_identity import give_runtime_dir, give_state_dir
from mailserver.net.workers.zygote_start import StartedZygote, start_zygote

if TYPE_CHECKING:
    from mailserver.net.service.service import ServiceProcess


class Options(usage.Options):
    """Options after `twistd mailserver`."""

    optParameters = [["config", "c", "/etc/mailserver/mailserver.toml", "The configuration file."]]  # noqa: N815
    optFlags = [  # noqa: N815
        ["check", None, "Check the configuration and all that it names, print every problem, and exit."],
        ["show", None, "Print the effective configuration, without secrets, and exit."],
    ]

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        from mailserver.version import version_line  # noqa: PLC0415

        print(version_line())  # noqa: T201
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Return the service, or exit with every problem of the configuration."""
    path = Path(options["config"]).absolute()
    twistd = options.parent
    sockets = _take_systemd_sockets()
    zygote = None if options["check"] or options["show"] else _prepare_process(path, twistd)
    config = _check(path, options)
    if config is None:
        if zygote is not None:
            zygote.end()
        raise SystemExit(1)
    if options["show"]:
        _show(config)
    return _make_service(config, twistd, sockets, zygote)


def _take_systemd_sockets() -> list[socket.socket]:
    try:
        return systemd.take_sockets()
    except OSError as error:
        raise SystemExit(f"systemd hands over what is no socket: {error}") from error


def _prepare_process(path: Path, twistd: Mapping[str, Any] | None) -> StartedZygote | None:
    """Make directories as root, and start the zygote if there are to be workers and twistd allows it already."""
    config = load.read(path).config
    if config is None:
        return None
    try:
        give_runtime_dir(config.server)
    except OSError as error:
        raise SystemExit(f"cannot make the runtime_dir: {error}") from error
    if not worker_count(config):
        with contextlib.suppress(OSError):  # the check reports it
            give_state_dir(config.server)
    elif twistd is not None and _is_settled(twistd):
        with contextlib.suppress(OSError):  # the master tries again, and reports it
            return start_zygote()
    return None


def _check(path: Path, options: Options) -> Config | None:
    """Print every problem; with `--check`, exit."""
    from mailserver.config.socket_rights import socket_lines  # noqa: PLC0415 - beside the zygote
    from mailserver.problems import find_problems  # noqa: PLC0415 - beside the zygote

    config, problems = find_problems(path, starting=not options["check"])
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201 - before there is a log
    if not options["check"]:
        return config
    if config is None:
        raise SystemExit(1)
    for line in (*socket_lines(config), f"{path}: no errors"):
        print(line)  # noqa: T201
    raise SystemExit(0)


def _show(config: Config) -> NoReturn:
    from mailserver.config.show import show  # noqa: PLC0415 - a start needs no writer of TOML

    sys.stdout.write(show(config))
    raise SystemExit(0)


def _make_service(
    config: Config, twistd: Mapping[str, Any] | None, sockets: list[socket.socket], zygote: StartedZygote | None
) -> IService:
    from mailserver.net.listeners.systemd_sockets import SystemdSockets, UnusableSocket  # noqa: PLC0415 - beside the zygote

    workers = worker_count(config)
    service = _master(config, twistd, workers, zygote) if workers else _single_process(config, twistd)
    try:
        service.systemd_sockets = SystemdSockets(sockets)
    except UnusableSocket as error:
        raise SystemExit(str(error)) from error
    if config.server.log_file is not None:
        service.log_file = make_log_file(config.server.log_file, twistd, config.server.log_format)
    if twistd is not None and twistd["nodaemon"] and _logs_to_output(twistd):
        # Its writes do not wait for a reader of the output.
        service.output_log = ProcessLog("", relayed=False, log_format=config.server.log_format)
    elif config.server.log_format == "json" and config.server.log_file is None:
        problem = config.problem(
            "[server] log_format",
            '"json"',
            "has no effect: twistd writes its own log as text; set log_file",
            warning=True,
        )
        print(problem, file=sys.stderr)  # noqa: T201 - before there is a log
    return service


def _single_process(config: Config, twistd: Mapping[str, Any] | None) -> ServiceProcess:
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it

    from mailserver.net.service.single_process import SingleProcessService  # noqa: PLC0415
    from mailserver.wiring.services import Services  # noqa: PLC0415

    return SingleProcessService(config, lambda current: Services(current, reactor), reactor, daemon=_is_daemon(twistd))


def _master(
    config: Config, twistd: Mapping[str, Any] | None, workers: int, zygote: StartedZygote | None
) -> ServiceProcess:
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it

    from mailserver.net.workers.master import MasterService  # noqa: PLC0415
    from mailserver.wiring.reload_check import check_reload, read_policy  # noqa: PLC0415

    daemon = _is_daemon(twistd)
    return MasterService(
        config,
        reactor,
        shards=workers,
        make_policy=lambda: read_policy(config),
        check_reload=check_reload,
        relayed=daemon or (twistd is not None and not _logs_to_output(twistd)),
        daemon=daemon,
        zygote=zygote,
    )


def worker_count(config: Config) -> int:
    """Return the number of workers; 0 for a single process."""
    return usable_processors() if config.server.workers == "auto" else int(config.server.workers)


def usable_processors() -> int:
    """Return how many processors this process may use, also by its control group's quota; at least 1."""
    processors = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            processors = min(processors, -(-int(quota) // int(period)))
    return max(1, processors)


def _is_daemon(twistd: Mapping[str, Any] | None) -> bool:
    return twistd is not None and not twistd["nodaemon"]


def _logs_to_output(twistd: Mapping[str, Any]) -> bool:
    return twistd.get("logfile") in {None, "-"} and not twistd.get("syslog") and twistd.get("logger") is None


def _is_settled(twistd: Mapping[str, Any]) -> bool:
    """Return whether a child can be started: twistd changes nothing more that it would inherit (user, directory, output)."""
    to_come = any(twistd.get(name) is not None for name in ("uid", "gid", "chroot", "umask"))
    return bool(twistd["nodaemon"]) and not to_come and twistd["rundir"] == "." and _logs_to_output(twistd)
