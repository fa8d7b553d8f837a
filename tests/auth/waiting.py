"""Driving coroutines, children and time without a reactor."""

import subprocess
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any

from mailserver.system.children import ChildEvents


class Waiting:
    """What a coroutine awaits until `callback`."""

    def __init__(self) -> None:
        self.result: Any = None
        self.done = False
        self.resume: Callable[[], None] | None = None

    def callback(self, result: Any) -> None:
        assert not self.done, "called back twice"
        self.result, self.done = result, True
        if self.resume:
            self.resume()

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.done:
            yield self
        return self.result


class Task:
    """One running coroutine; `outcome()` is its result or raises its exception."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._step()

    def _step(self) -> None:
        try:
            waiting = self._coroutine.send(None)
        except StopIteration as stop:
            self.done, self._result = True, stop.value
        except Exception as error:
            self.done, self._error = True, error
        else:
            waiting.resume = self._step

    def cancel(self) -> None:
        self._coroutine.close()
        self.done = True

    def outcome(self) -> Any:
        assert self.done, "still waiting"
        if self._error is not None:
            raise self._error
        return self._result


class Timers:
    """callLater and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pending: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        entry = (self.now + seconds, call)
        self.pending.append(entry)
        pending = self.pending

        class Cancel:
            def cancel(self) -> None:
                pending.remove(entry)

        return Cancel()

    def sleep(self, seconds: float) -> Waiting:
        waiting = Waiting()
        self.call_later(seconds, lambda: waiting.callback(None))
        return waiting

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((entry for entry in self.pending if entry[0] <= end), key=lambda entry: entry[0]):
            self.now = due[0][0]
            self.pending.remove(due[0])
            due[0][1]()
        self.now = end


class RealChild:
    """A child process on blocking pipes: `pump` carries one answer, or its death, to the pool."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], events: ChildEvents) -> None:
        self.arguments = arguments
        self.environment = environment
        self._events = events
        self._process = subprocess.Popen(
            arguments, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        self.pid = self._process.pid

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def kill(self) -> None:
        self._process.kill()

    def pump(self) -> None:
        assert self._process.stdout is not None
        data = self._process.stdout.readline()
        if data:
            self._events.received(data)
        else:
            self.close()
            self._events.ended(f"status {self._process.returncode}")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


class FakeChild:
    """A child that a test plays."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], events: ChildEvents) -> None:
        self.arguments = arguments
        self.environment = environment
        self.events = events
        self.written: list[bytes] = []
        self.killed = False
        self.gone = False
        self.answered = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def kill(self) -> None:
        self.killed = True

    def busy(self) -> bool:
        return len(self.written) > self.answered

    def die(self) -> None:
        self.gone = True
        self.events.ended("killed")

    def answer(self, right: bool) -> None:
        self.answered += 1
        self.events.received(b'{"right": true}\n' if right else b'{"right": false}\n')


class Spawn:
    """A Spawner that keeps its children."""

    def __init__(self, kind: Any = FakeChild) -> None:
        self._kind = kind
        self.children: list[Any] = []
        self.error: OSError | None = None

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], events: ChildEvents) -> Any:
        if self.error:
            raise self.error
        assert arguments[0] == sys.executable
        self.children.append(self._kind(arguments, environment, events))
        return self.children[-1]
