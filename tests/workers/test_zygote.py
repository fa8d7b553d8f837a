"""The process that forks: a reactor in it would be shared by all its children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.live.client import eventually
from tests.server import ROOT, Server
from tests.workers.processes import descriptors, workers, zygote

ASK = """
import sys
import mailserver.zygote
print(*[name for name in sys.modules if name.endswith("reactor") and name.startswith("twisted.internet.")])
"""


def test_no_reactor_is_imported_before_the_fork() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_running_zygote_has_no_epoll_and_its_workers_nothing_of_others(server: Server) -> None:
    def kinds(pid: int) -> list[str]:
        return [path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir()]

    assert not any("eventpoll" in kind for kind in kinds(zygote(server)))
    one, other = workers(server)
    assert sum("eventpoll" in kind for kind in kinds(one)) == 1
    assert not any("pidfd" in kind for pid in (one, other) for kind in kinds(pid))
    # As many sockets as the other, not those of both shards; one of them may have a file open for a moment.
    eventually(lambda: abs(descriptors(one) - descriptors(other)) <= 2)
