"""The numbers of all workers, whichever worker is asked; what has been counted outlives who counted it."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed

from prometheus_client.parser import text_string_to_metric_families

from tests.live.client import Client, eventually
from tests.server import Server


def numbers(server: Server) -> dict[tuple[str, ...], float]:
    """By name and the values of its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port('metrics')}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def pids(server: Server) -> list[int]:
    """Those of the workers that are there: one that has ended while it was asked has none."""
    told = json.loads(server.run_cli("status", "--json", "--config", str(server.config), check=False).stdout)
    return [worker["pid"] for worker in told["workers"] if "pid" in worker]


def test_every_worker_tells_the_numbers_of_all(server: Server) -> None:
    user, password = server.user_of("example.test")
    for _ in range(6):
        with Client(server, "imaps") as client:
            client.log_in(user, password)
    logins = ("mailserver_logins_total", "imaps", "TLSv1.3")
    # New connections are spread over the workers: both are asked.
    eventually(lambda: {numbers(server).get(logins) for _ in range(8)} == {6.0})
    first = pids(server)
    assert numbers(server)["mailserver_workers", "serving"] == 2

    os.kill(first[0], signal.SIGKILL)
    eventually(
        lambda: len(set(pids(server)) - set(first)) == 1 and numbers(server)["mailserver_workers", "serving"] == 2
    )
    found = numbers(server)
    assert found["mailserver_worker_restarts_total",] == 1
    assert found[logins] == 6
    with Client(server, "imaps") as client:
        client.log_in(user, password)
    assert numbers(server)[logins] == 7


def test_health_tells_of_a_worker_that_stands_still(server: Server) -> None:
    stopped = pids(server)[0]
    place = f"http://127.0.0.1:{server.port('metrics')}/health"
    assert urllib.request.urlopen(place, timeout=20).read() == b"ok\n"

    def status() -> int:
        try:
            with urllib.request.urlopen(place, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with ThreadPoolExecutor(16) as threads:
        os.kill(stopped, signal.SIGSTOP)
        try:
            # Asked at once, as it is replaced before long; half of them have come to the one that stands still.
            first = next(as_completed([threads.submit(status) for _ in range(16)]))
            assert first.result() == 503
        finally:
            os.kill(stopped, signal.SIGCONT)
