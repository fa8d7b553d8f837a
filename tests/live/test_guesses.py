"""Many logins at once on real sockets: guesses wait for one another, a household does not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live.client import TIMEOUT, Client
from tests.live.conftest import no_bug
from tests.server import WORKERS, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of its own: other tests would wait for what is guessed here."""
    server = Server(tmp_path_factory.mktemp("guesses"), edit={"[auth]\n": "[auth]\nfailure_delay_max = 1\n"})
    with server:
        yield server
    no_bug(server.log)


def opened(server: Server, stack: contextlib.ExitStack, number: int, source: str) -> list[Client]:
    """Clients that have been greeted."""
    clients = [stack.enter_context(Client(server, "imaps", source=source)) for _ in range(number)]
    for client in clients:
        client.greeting()
    return clients


def test_a_right_guess_behind_many_wrong_ones_waits_for_their_delays(server: Server) -> None:
    user, password = list(server.accounts.items())[1]
    with contextlib.ExitStack() as stack:
        guessers = opened(server, stack, 6, "127.0.0.20")
        [neighbour] = opened(server, stack, 1, "127.0.0.21")
        for number, client in enumerate(guessers):
            client.send(f'a LOGIN "{user}" "wrong{number}"\r\n'.encode())
        time.sleep(0.5)  # they are in line
        neighbour.send(f'a LOGIN "{user}" "{password}"\r\n'.encode())
        assert guessers[0].until(rb"a ")[-1].startswith(b"a NO")
        if WORKERS < 2:
            # Nobody else was looked at: else the right one were in long ago.
            neighbour.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                neighbour.line()
            neighbour.socket.settimeout(TIMEOUT)
        assert neighbour.until(rb"a ")[-1].startswith(b"a OK"), "addresses take turns"


def test_a_household_comes_back_at_once(server: Server) -> None:
    user, password = next(iter(server.accounts.items()))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(20) as threads:
        clients = opened(server, stack, 20, "127.0.0.22")
        answers = list(threads.map(lambda client: client.try_login(user, password), clients))
        assert [answer[:4] for answer in answers] == [b"a OK"] * 20
