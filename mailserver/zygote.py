"""`python -m mailserver.zygote N`: the process that forks workers; the master started it and has the other end of N.

What every worker needs is loaded here: once, and in memory that they share.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import mailserver.auth.backends.file  # the back end of most
import mailserver.imap.commands  # noqa: F401
from mailserver.net.ipc.ipc_messages import ServedConfig, WorkerInit
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.log.events import log_event
from mailserver.net.workers import worker
from mailserver.net.workers.zygote import Zygote, quiet_signals
from mailserver.tls.serving.material import Change
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.wiring.services import Services


def make_policy(setting: ServedConfig) -> TlsPolicy:
    """The base context, and those of the certificates."""
    if any(listener.family == "http" for listener in setting.config.listeners):
        import mailserver.http.services  # noqa: PLC0415 - where there is none it costs nothing
        import mailserver.http.session  # noqa: F401, PLC0415
    return TlsPolicy(setting.config, log_event, material=setting.material)


def update_policy(policy: TlsPolicy, setting: ServedConfig) -> None:
    """What later forks serve."""
    policy.commit(policy.prepare_material(setting.material))


def change_policy(policy: TlsPolicy, change: Change) -> None:
    """The same, where few names have changed."""
    policy.apply(change)


def make_services(init: WorkerInit, reactor: Any, link: ServerLink) -> Services:
    """A worker's objects."""
    return Services(
        init.setting.config,
        reactor,
        link,
        tls=init.tls,
        workers=init.shards,
        mail_root=init.mail_root,
    )


def main() -> None:
    """Serve the master."""
    quiet_signals()
    line = socket.socket(fileno=int(sys.argv[1]))
    line.set_inheritable(False)
    Zygote(line, make_policy, update_policy, change_policy, lambda init: worker.run(init, make_services)).run()


if __name__ == "__main__":
    main()
