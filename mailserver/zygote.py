"""`python -m mailserver.zygote N`: the process that forks workers; N is its socket to the master, which started it.

Modules that every worker needs are loaded here: once, and in memory that the workers share.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import mailserver.auth.backends.file  # the usual back end
import mailserver.imap.commands  # noqa: F401
from mailserver.net.ipc.master_messages import ServedConfig, WorkerInit
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.log.events import log_event
from mailserver.net.workers import worker
from mailserver.net.workers.zygote import Zygote, ignore_signals
from mailserver.tls.serving.material import Change
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.wiring.services import Services


def make_policy(served: ServedConfig) -> TlsPolicy:
    """Make the base context and those of the certificates."""
    if any(listener.family == "http" for listener in served.config.listeners):
        import mailserver.http.services  # noqa: PLC0415 - only for servers with HTTP
        import mailserver.http.session  # noqa: F401, PLC0415
    return TlsPolicy(served.config, log_event, material=served.material)


def update_policy(policy: TlsPolicy, served: ServedConfig) -> None:
    """Have later forks serve another configuration."""
    policy.commit(policy.prepare_material(served.material))


def change_policy(policy: TlsPolicy, change: Change) -> None:
    """Have later forks serve some other certificates."""
    policy.apply(change)


def make_services(init: WorkerInit, reactor: Any, link: ServerLink) -> Services:
    """Make the objects of a worker."""
    return Services(
        init.served.config,
        reactor,
        link,
        tls=init.tls,
        workers=init.shards,
        mail_root=init.mail_root,
    )


def main() -> None:
    """Run the zygote."""
    ignore_signals()
    master = socket.socket(fileno=int(sys.argv[1]))
    master.set_inheritable(False)
    Zygote(master, make_policy, update_policy, change_policy, lambda init: worker.run(init, make_services)).run()


if __name__ == "__main__":
    main()
