"""A back end that never answers, beside one that does."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.cli.test_auth import HANGING
from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import ROOT, Server


def test_a_back_end_that_never_answers_refuses_those_it_would_know_alone(tmp_path: Path) -> None:
    (tmp_path / "code" / "twisted" / "plugins").mkdir(parents=True)
    (tmp_path / "code" / "hanging.py").write_text(HANGING)
    (tmp_path / "code" / "twisted" / "plugins" / "hanging_plugin.py").write_text(
        'from mailserver.auth.plugins import AuthBackendMaker\nhang = AuthBackendMaker("hang", "hanging", "how")\n'
    )
    server = Server(tmp_path / "server")
    text = server.config.read_text()
    old = next(line for line in text.splitlines() if line.startswith("backends = "))
    server.config.write_text(text.replace(old, old.replace("]", ', "hang:later"]')))
    server.extra["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "code"), str(ROOT)])
    with server:
        waiting = [Client(server, "imaps") for _ in range(3)]
        began = time.monotonic()
        for number, client in enumerate(waiting):
            client.greeting()
            client.send(b'a LOGIN "elsewhere%d@example.test" "secret"\r\n' % number)
        with Client(server, "imaps") as bystander:
            bystander.greeting()
            bystander.log_in(*server.user_of("example.test"))
        for client in waiting:
            assert client.until(rb"a ")[-1].startswith(b"a NO [UNAVAILABLE]")
            client.socket.close()
        assert time.monotonic() - began < 50
        server.wait_for(r"back end hang does not answer: logins that need it are refused for 5 s")
        with Client(server, "imaps") as late:
            late.greeting()
            assert late.try_login("elsewhere9@example.test", "secret").startswith(b"a NO [UNAVAILABLE]")
    no_bug(server.log)
