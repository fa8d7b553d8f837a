"""Store operations of an account run in order and one at a time; their failures come back."""

import threading

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.cancellation import check
from mailserver.errors import Cancelled, NoSpace
from mailserver.net.connection.coroutines import Task, turn
from mailserver.net.connection.store_threads import AccountRunner, StoreThreads


@implementer(IReactorFromThreads)
class Calls:
    """callFromThread collects; the test's own thread takes them."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.calls: list[object] = []

    def callFromThread(self, function: object, *arguments: object) -> None:
        self.calls.append((function, arguments))
        self.waiting.release()

    def take(self) -> None:
        assert self.waiting.acquire(timeout=20)
        function, arguments = self.calls.pop(0)  # type: ignore[misc]
        function(*arguments)


class RunnerTest(TestCase):
    def setUp(self) -> None:
        self.calls = Calls()
        self.pool = StoreThreads(4)
        self.addCleanup(self.pool.stop)

    def test_order_and_one_at_a_time(self) -> None:
        runner = AccountRunner(self.calls, self.pool)
        inside = 0
        most = 0
        order: list[int] = []

        def operation(number: int) -> int:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            order.append(number)
            inside -= 1
            return number

        answers = [runner.run(lambda number=number: operation(number)) for number in range(50)]
        for _ in answers:
            self.calls.take()
        self.assertEqual(self.successResultOf(gatherResults(answers)), list(range(50)))
        self.assertEqual((order, most), (list(range(50)), 1))

    def test_two_accounts_run_side_by_side(self) -> None:
        meeting = threading.Barrier(2, timeout=20)
        answers: list[Deferred[int]] = [AccountRunner(self.calls, self.pool).run(meeting.wait) for _ in range(2)]
        for _ in answers:
            self.calls.take()
        self.assertEqual(sorted(self.successResultOf(gatherResults(answers))), [0, 1])

    def test_a_failure_comes_back_and_the_queue_goes_on(self) -> None:
        runner = AccountRunner(self.calls, self.pool)

        def fail() -> None:
            raise NoSpace

        bad, good = runner.run(fail), runner.run(lambda: "good")
        self.calls.take()
        self.calls.take()
        self.failureResultOf(bad, NoSpace)
        self.assertEqual(self.successResultOf(good), "good")

    def test_stopping_does_not_wait_for_ever(self) -> None:
        gate = threading.Event()
        self.addCleanup(gate.set)
        threads = StoreThreads(1)
        threads.call(lambda: gate.wait(30))  # type: ignore[arg-type, return-value]
        threads.stop(0.05)
        self.assertFalse(gate.is_set())

    def test_an_operation_obeys_the_session_that_asked_for_it(self) -> None:
        runner = AccountRunner(self.calls, self.pool)
        begun, go_on = threading.Event(), threading.Event()
        said: list[str] = []

        def operation() -> None:
            begun.set()
            assert go_on.wait(20)
            check()

        async def session(name: str) -> None:
            try:
                await runner.run(operation)
                said.append(f"{name} done")
            except Cancelled:
                said.append(f"{name} cancelled")

        first, second = (Task(session(name), lambda _end: None, lambda: None, lambda: 0.0) for name in "ab")
        first.start()
        second.start()
        assert begun.wait(20)
        first.cancel()
        go_on.set()
        self.calls.take()
        self.calls.take()
        self.assertEqual(said, ["a cancelled", "b done"])
        self.assertIsNone(turn.task)
