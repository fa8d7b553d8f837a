"""SEARCH by save date (RFC 8514): from memory after the first, like a naive search, whatever the days are."""

from __future__ import annotations

import random

from mailserver.message.render import summarise
from mailserver.store.memory import MemoryMailbox, MemoryStore
from tests.fakes import Client
from tests.imap.sessions import put, selected, services

DAY = 86400
JANUARY = 1_767_225_600
"""2026-01-01."""


def on_days(days: list[int]) -> Client:
    now = [JANUARY]
    store = MemoryStore(summarise, clock=lambda: now[0])
    client = selected(services(store=store))
    for day in days:
        now[0] = JANUARY + day * DAY + 5000
        put(client)
    return client


def search(client: Client, keys: str) -> list[int]:
    answer = client.ask(f"f SEARCH {keys}\r\n".encode())
    assert b"f OK" in answer, answer
    return [int(word) for word in answer.partition(b"\r\n")[0].split()[2:]]


def test_it_is_as_a_naive_search() -> None:
    source = random.Random(8514)
    days = [source.randrange(20) for _ in range(60)]
    client = on_days(days)
    for day in range(21):
        date = f"{day + 1}-Jan-2026"
        before = [at for at, each in enumerate(days, 1) if each < day]
        on = [at for at, each in enumerate(days, 1) if each == day]
        since = [at for at, each in enumerate(days, 1) if each >= day]
        assert search(client, f"SAVEDBEFORE {date}") == before
        assert search(client, f"SAVEDON {date}") == on
        assert search(client, f"SAVEDSINCE {date}") == since
        assert search(client, f"NOT SAVEDON {date}") == sorted(before + [each for each in since if each not in on])
        assert search(client, f"OR SAVEDON {date} (10:20 SAVEDBEFORE {date})") == sorted(
            {*on, *(each for each in before if 10 <= each <= 20)}
        )


def test_dates_are_read_once(monkeypatch) -> None:
    client = on_days([1, 2, 3])
    asked: list[list[int]] = []
    real = MemoryMailbox.save_dates
    monkeypatch.setattr(MemoryMailbox, "save_dates", lambda self, uids: (asked.append(list(uids)), real(self, uids))[1])
    for _ in range(3):
        assert search(client, "SAVEDSINCE 3-Jan-2026 NOT SAVEDON 4-Jan-2026") == [2]
    put(client)
    assert search(client, "SAVEDON 4-Jan-2026") == [3, 4]
    assert asked == [[1, 2, 3], [4]]


def test_what_is_expunged_is_forgotten() -> None:
    client = on_days([number % 5 for number in range(300)])
    assert len(search(client, "SAVEDSINCE 1-Jan-2026")) == 300
    client.ask(b"a STORE 11:300 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\n")
    assert search(client, "SAVEDON 2-Jan-2026") == [2, 7]
    live = client.session.selected.live
    assert len(live.save_dates.uids) == 10
    put(client)
    assert search(client, "SAVEDON 5-Jan-2026") == [5, 10, 11]
