"""The pool, with children that the test plays, and with real ones."""

import base64
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.auth.asking import GUESSING, KNOWN, NEW
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.hash_pool import MAX_WAIT, HashPool, _Request
from mailserver.errors import AuthUnavailable, TooManyLogins
from mailserver.types import Secret
from tests.auth.waiting import FakeChild, RealChild, Spawn, Task, Timers, Waiting

STORED = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"
LARGE = "{ARGON2ID}$argon2id$v=19$m=262144,t=3,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyonCo/CI4g"


class Bench:
    def __init__(self, kind: Any = FakeChild, **settings: Any) -> None:
        self.timers = Timers()
        self.spawn = Spawn(kind)
        self.pool = HashPool(self.spawn, Waiting, self.timers.call_later, **settings)

    def ask(self, stored: str = STORED, password: bytes = b"secret", share: str = "", rank: int = GUESSING) -> Task:
        return Task(self.pool.verify(stored, Secret(password), share, rank))

    def asked(self) -> list[bytes]:
        """The passwords that the only child was given, in order."""
        (child,) = self.spawn.children
        return [base64.b64decode(json.loads(line)["password"]) for line in child.written]


def test_asks_a_child_and_gives_its_answer() -> None:
    bench = Bench(processes=1)
    task = bench.ask()
    (child,) = bench.spawn.children
    assert json.loads(child.written[0])["stored"] == STORED
    assert not task.done
    child.answer(True)
    assert task.outcome() is True
    other = bench.ask(password=b"wrong")
    child.answer(False)
    assert other.outcome() is False
    assert len(bench.spawn.children) == 1
    assert bench.timers.pending == []


def test_a_new_entry_is_made_behind_all_checks() -> None:
    bench = Bench(processes=1, queue=2)
    running = bench.ask()
    made = Task(bench.pool.make_anew(Secret(b"new"), {"SHA-256": ""}))
    check = bench.ask(password=b"check", rank=NEW)
    (child,) = bench.spawn.children
    child.answer(True)
    assert running.outcome() is True
    assert bench.asked() == [b"secret", b"check"]
    child.answer(True)
    assert check.outcome() is True
    assert json.loads(child.written[2]) == {"scram": {"SHA-256": ""}, "password": "bmV3"}
    child.events.received(b'{"made": "{X}y", "scram": {"SHA-256": "k"}}\n')
    assert made.outcome() == ("{X}y", {"SHA-256": "k"})
    bench.pool.stop()
    with pytest.raises(AuthUnavailable):
        Task(bench.pool.make_anew(Secret(b"new"), {})).outcome()


def test_an_answer_to_another_question_makes_no_entry() -> None:
    bench = Bench(processes=1)
    made = Task(bench.pool.make_anew(Secret(b"new"), {}))
    bench.spawn.children[0].answer(True)
    with pytest.raises(AuthUnavailable):
        made.outcome()


def test_what_is_only_compared_needs_no_child() -> None:
    bench = Bench(processes=1, queue=1)
    asked = [bench.ask() for _ in range(2)]
    assert bench.ask("{PLAIN}secret").outcome() is True
    assert bench.ask("{PLAIN}secret", b"other").outcome() is False
    assert bench.ask("{PLAIN.B64}c2VjcmV0").outcome() is True
    assert bench.asked() == [b"secret"]
    assert not any(task.done for task in asked)
    bench.pool.stop()
    with pytest.raises(AuthUnavailable):
        bench.ask("{PLAIN}secret").outcome()


def test_secrets_are_in_no_argument_and_no_environment() -> None:
    bench = Bench()
    bench.ask(password=b"hunter2")
    child = bench.spawn.children[0]
    outside = " ".join([*child.arguments, *child.environment, *child.environment.values()])
    assert "hunter2" not in outside
    assert STORED not in outside


def test_no_representation_shows_a_password() -> None:
    assert "secret" not in repr(_Request(b"secret", 1, Waiting(), "192.0.2.0/24", NEW))


def test_each_child_has_one_check_and_the_rest_waits_in_order() -> None:
    bench = Bench(processes=2, queue=2)
    tasks = [bench.ask(password=bytes([65 + number])) for number in range(4)]
    first, second = bench.spawn.children
    assert [len(first.written), len(second.written)] == [1, 1]
    with pytest.raises(AuthUnavailable):
        bench.ask().outcome()
    second.answer(True)
    assert [task.done for task in tasks] == [False, True, False, False]
    assert json.loads(second.written[1])["password"] == "Qw=="  # "C", the third
    first.answer(False)
    second.answer(False)
    first.answer(True)
    assert [task.outcome() for task in tasks] == [False, True, False, True]


def test_networks_take_turns() -> None:
    bench = Bench(processes=1)
    tasks = [bench.ask(password=b"a%d" % n, share="a") for n in range(4)]
    tasks += [bench.ask(password=b"b%d" % n, share="b") for n in range(2)]
    for _ in tasks:
        bench.spawn.children[0].answer(True)
    assert bench.asked() == [b"a0", b"a1", b"b0", b"a2", b"b1", b"a3"]
    assert all(task.outcome() is True for task in tasks)


def test_a_known_user_waits_for_the_check_that_runs_and_for_no_flood() -> None:
    bench = Bench(processes=1, queue=64)
    flood = [bench.ask(password=b"flood%d" % n, share=f"198.51.{n}.1", rank=GUESSING) for n in range(65)]
    with pytest.raises(TooManyLogins):
        bench.ask(share="198.51.99.1", rank=GUESSING).outcome()
    known = bench.ask(password=b"right", share="anna@example.test", rank=KNOWN)
    bench.spawn.children[0].answer(False)
    assert bench.asked() == [b"flood0", b"right"]
    bench.spawn.children[0].answer(True)
    assert known.outcome() is True
    assert sum(task.done for task in flood) == 1


def test_each_known_user_has_one_turn_however_many_networks_it_has() -> None:
    bench = Bench(processes=1)
    many = [bench.ask(password=b"m%d" % n, share="mallory@example.test", rank=KNOWN) for n in range(30)]
    other = bench.ask(password=b"right", share="anna@example.test", rank=KNOWN)
    for _ in range(3):
        bench.spawn.children[0].answer(False)
    assert bench.asked()[:3] == [b"m0", b"m1", b"right"]
    assert other.done
    assert sum(task.done for task in many) == 2


def test_networks_that_have_not_guessed_go_ahead_of_those_that_have() -> None:
    bench = Bench(processes=1)
    bench.ask(password=b"runs")
    bench.ask(password=b"guess", rank=GUESSING)
    bench.ask(password=b"new", rank=NEW)
    for _ in range(2):
        bench.spawn.children[0].answer(False)
    assert bench.asked() == [b"runs", b"new", b"guess"]


def test_a_first_wave_is_no_line_that_the_next_one_stands_behind() -> None:
    bench = Bench(processes=1, queue=4)
    wave = [bench.ask(password=b"wave%d" % n, share=f"198.51.{n}.1", rank=NEW) for n in range(6)]
    with pytest.raises(TooManyLogins):
        wave[1].outcome()
    assert [task.done for task in wave] == [False, True, False, False, False, False], "the oldest that waits gives way"
    person = bench.ask(password=b"right", share="203.0.113.1", rank=NEW)
    bench.spawn.children[0].answer(False)
    bench.spawn.children[0].answer(True)
    assert bench.asked()[:2] == [b"wave0", b"right"]
    assert person.outcome() is True
    twice = [bench.ask(password=b"t%d" % n, share="203.0.113.2", rank=NEW) for n in range(4)]
    assert sum(task.done for task in twice) == 2, "who has more waiting than others makes nobody give way"


@pytest.mark.parametrize("rank", [KNOWN, NEW, GUESSING])
def test_what_waits_too_long_is_refused(rank: int) -> None:
    bench = Bench(processes=1, timeout=1000.0)
    runs = bench.ask(rank=rank)
    waits = bench.ask(rank=rank)
    bench.timers.advance(MAX_WAIT)
    with pytest.raises(TooManyLogins):
        waits.outcome()
    assert not runs.done
    bench.spawn.children[0].answer(True)
    assert runs.outcome() is True
    assert bench.timers.pending == []


def test_no_class_stands_still_behind_another() -> None:
    bench = Bench(processes=1, queue=64)
    for n in range(60):
        bench.ask(password=b"known", share=f"user{n}", rank=KNOWN)
    for n in range(4):
        bench.ask(password=b"new", share=f"client{n}", rank=NEW)
        bench.ask(password=b"guess", share=f"client{n}", rank=GUESSING)
    for _ in range(40):
        bench.spawn.children[0].answer(False)
    asked = bench.asked()
    assert asked[:8] == [b"known"] * 8, "one runs, and seven go ahead"
    assert asked.count(b"new") == 4
    assert 0 < asked.count(b"guess") <= asked.count(b"new")
    assert asked.count(b"known") >= 30


def test_a_flood_holds_up_itself_alone() -> None:
    bench = Bench(processes=1, queue=4)
    flood = [bench.ask(share="flood") for _ in range(5)]
    with pytest.raises(AuthUnavailable):
        bench.ask(share="flood").outcome()
    others = [bench.ask(password=name, share=name.decode()) for name in (b"x", b"y", b"z")]
    # Its newest give way, one for each of the others; its share is then as small as theirs.
    assert [task.done for task in flood] == [False, False, True, True, True]
    with pytest.raises(AuthUnavailable):
        flood[4].outcome()
    with pytest.raises(AuthUnavailable):
        bench.ask(share="one more").outcome()
    for _ in range(5):
        bench.spawn.children[0].answer(True)
    assert all(task.outcome() is True for task in [*flood[:2], *others])
    assert bench.pool._queue.first() is None
    assert len(bench.pool._queue) == 0


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "cancel", "die"]), st.sampled_from("abc")), max_size=60))
@settings(max_examples=100)
def test_every_request_is_answered_once_whatever_happens(events: list[tuple[str, str]]) -> None:
    bench = Bench(processes=2, queue=3)
    tasks: list[Task] = []
    for event, share in events:
        live = [child for child in bench.spawn.children if not child.gone]
        busy = [child for child in live if child.busy()]
        if event == "ask":
            tasks.append(bench.ask(share=share))
        elif event == "answer" and busy:
            busy[0].answer(True)
        elif event == "die" and live:
            live[-1].die()
        elif event == "cancel" and (waiting := [task for task in tasks if not task.done]):
            waiting[-1].cancel()
        assert len(bench.pool._queue) <= 3
        assert len([child for child in bench.spawn.children if not child.gone]) <= 2
    for _ in range(len(tasks) + 1):
        for child in [child for child in bench.spawn.children if not child.gone and child.busy()]:
            child.answer(True)
    assert all(task.done for task in tasks)
    assert len(bench.pool._queue) == 0
    assert bench.timers.pending == []


def test_memory_of_running_checks_is_bounded() -> None:
    bench = Bench(processes=3, memory_kib=600_000)
    tasks = [bench.ask(LARGE) for _ in range(3)]
    assert len(bench.spawn.children) == 2, "a third of 256 MiB each would be over the budget"
    bench.spawn.children[0].answer(True)
    assert tasks[0].outcome() is True
    assert sum(len(child.written) for child in bench.spawn.children) == 3


def test_one_check_over_the_budget_runs_alone() -> None:
    bench = Bench(processes=2, memory_kib=1)
    task = bench.ask(LARGE)
    bench.spawn.children[0].answer(True)
    assert task.outcome() is True


def test_a_dead_child_is_replaced_and_the_request_tried_once_more() -> None:
    bench = Bench(processes=1)
    task = bench.ask()
    bench.spawn.children[0].events.ended("killed")
    assert not task.done
    bench.spawn.children[1].answer(True)
    assert task.outcome() is True


def test_after_the_second_death_it_is_unavailable_and_the_next_is_served() -> None:
    bench = Bench(processes=1)
    task, following = bench.ask(), bench.ask()
    bench.spawn.children[0].events.ended("killed")
    bench.spawn.children[1].events.ended("killed")
    with pytest.raises(AuthUnavailable):
        task.outcome()
    bench.spawn.children[2].answer(True)
    assert following.outcome() is True


def test_an_idle_death_starts_nothing_until_needed() -> None:
    bench = Bench(processes=1)
    bench.pool.start()
    bench.spawn.children[0].events.ended("killed")
    assert len(bench.spawn.children) == 1
    bench.ask()
    assert len(bench.spawn.children) == 2


def test_a_hanging_child_is_killed() -> None:
    bench = Bench(processes=1, timeout=30)
    task = bench.ask()
    bench.timers.advance(29)
    assert not bench.spawn.children[0].killed
    bench.timers.advance(2)
    assert bench.spawn.children[0].killed
    second = bench.ask()
    assert len(bench.spawn.children) == 1, "no work for the dying, no third process"
    bench.spawn.children[0].events.ended("killed")
    bench.spawn.children[1].answer(True)
    assert task.outcome() is True
    bench.spawn.children[1].answer(False)
    assert second.outcome() is False


@pytest.mark.parametrize("line", [b"nonsense\n", b"{}\n", b'{"right": 1}\n', b"[]\n", b"\xff\n"])
def test_nonsense_is_unavailable_and_the_child_replaced(line: bytes) -> None:
    bench = Bench(processes=1)
    task = bench.ask()
    bench.spawn.children[0].events.received(line)
    assert bench.spawn.children[0].killed
    with pytest.raises(AuthUnavailable):
        task.outcome()


def test_an_endless_answer_is_not_collected() -> None:
    bench = Bench(processes=1)
    bench.ask()
    bench.spawn.children[0].events.received(b"x" * 5000)
    assert bench.spawn.children[0].killed


def test_an_answer_may_come_in_pieces() -> None:
    bench = Bench(processes=1)
    task = bench.ask()
    for byte in b'{"right": true}\n':
        bench.spawn.children[0].events.received(bytes([byte]))
    assert task.outcome() is True


def test_what_was_given_up_is_not_checked() -> None:
    bench = Bench(processes=1)
    first, second, third = bench.ask(), bench.ask(password=b"2"), bench.ask(password=b"3")
    second.cancel()
    bench.spawn.children[0].answer(True)
    assert first.outcome() is True
    assert json.loads(bench.spawn.children[0].written[1])["password"] == "Mw=="
    bench.spawn.children[0].answer(True)
    assert third.outcome() is True


def test_no_process_to_be_had() -> None:
    bench = Bench(processes=1)
    bench.spawn.error = OSError("no more processes")
    with pytest.raises(AuthUnavailable):
        bench.ask().outcome()
    bench.spawn.error = None
    task = bench.ask()
    bench.spawn.children[0].answer(True)
    assert task.outcome() is True


def test_an_unusable_entry_is_unavailable() -> None:
    bench = Bench()
    with pytest.raises(AuthUnavailable):
        bench.ask("{ROT13}frperg").outcome()
    assert bench.spawn.children == []


def test_stop_ends_children_and_answers_what_waits() -> None:
    bench = Bench(processes=1)
    tasks = [bench.ask(), bench.ask()]
    bench.pool.stop()
    assert bench.spawn.children[0].killed
    for task in tasks:
        with pytest.raises(AuthUnavailable):
            task.outcome()
    bench.spawn.children[0].events.ended("killed")
    with pytest.raises(AuthUnavailable):
        bench.ask().outcome()
    assert len(bench.spawn.children) == 1
    assert bench.timers.pending == []


@pytest.fixture
def real() -> Iterator[Bench]:
    bench = Bench(RealChild, processes=1)
    yield bench
    bench.pool.stop()
    for child in bench.spawn.children:
        child.close()


def test_a_real_child_checks_and_survives_ctrl_c(real: Bench) -> None:
    stored = schemes.make(b"secret", cost=schemes.LIGHT)
    for password, right in ((b"secret", True), (b"wrong", False)):
        task = real.ask(stored, password)
        real.spawn.children[0].pump()
        assert task.outcome() is right
        # Ctrl-C at the terminal goes to the whole group.
        os.kill(real.spawn.children[0].pid, signal.SIGINT)


def test_a_real_child_killed_in_its_work(real: Bench) -> None:
    stored = schemes.make(b"secret", "PBKDF2")
    task = real.ask(stored)
    os.kill(real.spawn.children[0].pid, signal.SIGKILL)
    real.spawn.children[0].pump()
    if not task.done:
        real.spawn.children[-1].pump()
    assert task.outcome() is True


def test_the_child_imports_no_twisted() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mailserver.auth.schemes.hash_process; print([m for m in sys.modules if m.startswith('twisted')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
