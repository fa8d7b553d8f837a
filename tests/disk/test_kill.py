"""kill -9 of the whole server under load: what was acknowledged is there, once; no UID is used twice; nobody waits."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from attrs import Factory, define

from tests.disk.small import USER, kill, message, send, subject_of
from tests.hostile.conftest import no_bugs
from tests.hostile.wire import Client, log_in
from tests.server import Server

RUNS = 5
QUICK = 60.0
"""Seconds for a start and the first SELECT: far more than they need, far less than a lock's two minutes."""
FOLDERS = ("INBOX", "Source", "Target")


@define
class Known:
    """What the clients were told."""

    there: set[str] = Factory(set)
    """Subjects acknowledged."""
    uids: dict[tuple[str, int], str] = Factory(dict)
    """(mailbox, UID) -> subject, from APPENDUID, COPYUID and every look: never another."""
    flagged: set[tuple[str, int]] = Factory(set)
    moved: set[str] = Factory(set)
    """Subjects whose MOVE to Target was acknowledged."""
    gone: set[str] = Factory(set)
    """Subjects whose EXPUNGE was acknowledged."""
    perhaps_gone: set[str] = Factory(set)
    next_uid: dict[str, int] = Factory(dict)
    validity: dict[str, int] = Factory(dict)

    def saw(self, mailbox: str, uid: int, subject: str) -> None:
        assert self.uids.setdefault((mailbox, uid), subject) == subject, f"UID {uid} of {mailbox} was used twice"


def delivering(server: Server, known: Known, run: str) -> None:
    with log_in(server, "lmtp", USER) as client:
        for number in range(10_000):
            subject = f"{run}-lmtp{number}"
            if send(client, subject, size=3000).startswith(b"250"):
                known.there.add(subject)


def appending(server: Server, known: Known, run: str) -> None:
    with log_in(server, "imaps", USER) as client:
        for number in range(10_000):
            subject = f"{run}-append{number}"
            answer = client.command(b"APPEND Source {}", message(subject, 3000))[-1]
            if found := re.match(rb"OK \[APPENDUID [0-9]+ ([0-9]+)\]", answer):
                known.there.add(subject)
                known.saw("Source", int(found[1]), subject)


def flagging(server: Server, known: Known, run: str) -> None:
    with log_in(server, "imaps", USER) as client:
        for _ in range(10_000):
            client.command(b"SELECT INBOX")
            for uid in uids(client)[-5:]:
                if client.command(b"UID STORE %d +FLAGS.SILENT (\\Flagged kept)" % uid)[-1].startswith(b"OK"):
                    known.flagged.add(("INBOX", uid))


def moving(server: Server, known: Known, run: str) -> None:
    with log_in(server, "imaps", USER) as client:
        for number in range(10_000):
            subject = f"{run}-move{number}"
            answer = client.command(b"APPEND Source {}", message(subject, 1000))[-1]
            found = re.match(rb"OK \[APPENDUID [0-9]+ ([0-9]+)\]", answer)
            assert found is not None
            known.there.add(subject)
            known.saw("Source", int(found[1]), subject)
            client.command(b"SELECT Source")
            answers = client.command(b"UID MOVE %b Target" % found[1])
            if answers[-1].startswith(b"OK"):
                known.moved.add(subject)
                copied = re.search(rb"COPYUID [0-9]+ [0-9]+ ([0-9]+)", b" ".join(answers))
                assert copied is not None
                known.saw("Target", int(copied[1]), subject)


def expunging(server: Server, known: Known, run: str) -> None:
    with log_in(server, "imaps", USER) as client:
        for number in range(10_000):
            subject = f"{run}-gone{number}"
            answer = client.command(b"APPEND Target {}", message(subject, 1000))[-1]
            found = re.match(rb"OK \[APPENDUID [0-9]+ ([0-9]+)\]", answer)
            assert found is not None
            known.there.add(subject)
            known.saw("Target", int(found[1]), subject)
            client.command(b"SELECT Target")
            # Once it may be marked, the next EXPUNGE of anybody may remove it.
            known.perhaps_gone.add(subject)
            client.command(b"UID STORE %b +FLAGS.SILENT (\\Deleted)" % found[1])
            if client.command(b"EXPUNGE")[-1].startswith(b"OK"):
                known.gone.add(subject)


def uids(client: Client) -> list[int]:
    return [int(number) for number in client.command(b"UID SEARCH ALL")[0].split()[2:]]


def check(server: Server, known: Known) -> None:
    seen: Counter[str] = Counter()
    places: dict[str, str] = {}
    with log_in(server, "imaps", USER) as client:
        for mailbox in FOLDERS:
            told = b" ".join(client.command(b"SELECT " + mailbox.encode()))
            for word, values in ((rb"UIDVALIDITY ([0-9]+)", known.validity), (rb"UIDNEXT ([0-9]+)", known.next_uid)):
                found = re.search(word, told)
                assert found is not None
                value, before = int(found[1]), values.get(mailbox)
                values[mailbox] = value
                if values is known.validity:
                    assert before in (None, value), f"another UIDVALIDITY of {mailbox}"
                else:
                    assert value >= (before or 0)
                    assert value > max((uid for place, uid in known.uids if place == mailbox), default=0)
            flags = set()
            for answer in client.command(b"UID FETCH 1:* (UID FLAGS BODY.PEEK[])")[:-1]:
                subject = subject_of(answer)
                assert b"\r\nend of " + subject.encode() + b"\r\n" in answer, f"{subject} is not whole"
                uid = int(re.search(rb"UID ([0-9]+)", answer)[1])  # type: ignore[index]
                known.saw(mailbox, uid, subject)
                seen[subject] += 1
                places[subject] = mailbox
                if b"\\Flagged" in answer and b"kept" in answer[:200]:
                    flags.add((mailbox, uid))
            lost = {place for place in known.flagged if place[0] == mailbox} - flags
            assert not lost, f"flags were lost: {lost}"
        for line in client.command(b'LIST "" *')[:-1]:
            assert client.command(b"STATUS %b (MESSAGES)" % line.rpartition(b" ")[2])[-1].startswith(b"OK")
    assert max(seen.values(), default=0) <= 1, [subject for subject, count in seen.items() if count > 1]
    missing = known.there - known.perhaps_gone - set(seen)
    assert not missing, f"acknowledged and lost: {missing}"
    assert not known.gone & set(seen), f"came back: {known.gone & set(seen)}"
    assert all(places[subject] == "Target" for subject in known.moved)


def test_kill_under_load(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    known = Known()
    server = Server(tmp_path / "server", users=1)
    server.start()
    with log_in(server, "imaps", USER) as client:
        for name in FOLDERS[1:]:
            assert client.command(b"CREATE " + name.encode())[-1].startswith(b"OK")
    failures: list[BaseException] = []

    def attempt(work: Callable[[Server, Known, str], None], run: str) -> None:
        try:
            work(server, known, run)
        except (EOFError, OSError):
            pass  # the server was killed
        except BaseException as error:
            failures.append(error)

    for number in range(RUNS):
        works = (delivering, delivering, appending, flagging, moving, expunging)
        threads = [
            threading.Thread(target=attempt, args=(work, f"r{number}-{at}"), daemon=True)
            for at, work in enumerate(works)
        ]
        before = len(known.there)
        for thread in threads:
            thread.start()
        while len(known.there) < before + 20 and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        time.sleep(dice.uniform(0.05, 1.0))
        kill(server)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert not failures, failures
        begun = time.monotonic()
        server.start()
        with log_in(server, "imaps", USER) as client:
            for name in FOLDERS:
                assert client.command(b"SELECT " + name.encode())[-1].startswith(b"OK")
        assert time.monotonic() - begun < QUICK
        check(server, known)
    server.stop()
    no_bugs(server.log)
    assert len(known.there) > RUNS * 20
