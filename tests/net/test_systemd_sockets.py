"""Sockets that systemd hands over: which of them can be served, and what is said of the others."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mailserver.config.model import Listener
from mailserver.config.socket_rights import SocketRights
from mailserver.net.listeners.binding import bind
from mailserver.net.listeners.systemd_sockets import SystemdSockets, UnusableSocket
from tests.auth.test_plugins import config
from tests.server import HAND_OVER, ROOT


def rights(_listener: Listener) -> SocketRights:
    """Those of a Unix socket that is bound."""
    return SocketRights(0o600, os.geteuid(), os.getegid())


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def test_a_listener_gets_the_socket_of_its_place_one_for_all_workers(opened: contextlib.ExitStack) -> None:
    four = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = four.getsockname()[1]
    six = opened.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
    handed_over = SystemdSockets([four, six])
    listener = Listener(protocol="imaps", port=port, addresses=("127.0.0.1", "::1"))
    for _ in range(2):
        found = bind(listener, shards=3, rights=rights, from_systemd=handed_over.at)
        assert [(each.place, each.from_systemd) for each in found] == [
            (f"127.0.0.1:{port}", True),
            (f"[::1]:{port}", True),
        ]
        for each in found:
            assert not each.socket.getblocking()
            with each.socket, socket.create_connection(each.socket.getsockname()[:2]):
                each.socket.accept()[0].close()


def test_what_is_not_handed_over_is_bound(opened: contextlib.ExitStack) -> None:
    four = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener = Listener(protocol="imaps", port=four.getsockname()[1], addresses=("127.0.0.1", "127.0.0.2"))
    found = bind(listener, shards=2, rights=rights, from_systemd=SystemdSockets([four]).at)
    for each in found:
        opened.enter_context(each.socket)
    assert [each.from_systemd for each in found] == [True, False, False]


def test_the_file_of_a_unix_socket_is_left_to_systemd(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    unix = opened.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(path))
    unix.listen()
    (found,) = bind(Listener(protocol="lmtp", socket=path), rights=rights, from_systemd=SystemdSockets([unix]).at)
    found.socket.close()
    found.remove_file()
    assert path.is_socket()


def test_what_no_listener_serves_is_told(opened: contextlib.ExitStack) -> None:
    one, other = (opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
    ports = [each.getsockname()[1] for each in (one, other)]
    listener = Listener(protocol="imaps", port=ports[0], addresses=("127.0.0.1",))
    (line,) = SystemdSockets([one, other]).unserved(attrs.evolve(config("file:/users"), listeners=(listener,)))
    assert f"127.0.0.1:{ports[1]}" in line
    assert "socket unit" in line


@pytest.mark.parametrize("loaded", ["twisted.internet.task", "twisted.internet.endpoints"])
def test_they_are_taken_whatever_twistd_has_loaded_before(opened: contextlib.ExitStack, loaded: str) -> None:
    """Some of its plugins load what takes them out of the environment."""
    sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    program = (
        f"import os, {loaded}; from mailserver.net.service.systemd import take_sockets; taken = take_sockets();"
        "print([one.getsockname()[1] for one in taken], [one.get_inheritable() for one in taken],"
        " [name for name in os.environ if name.startswith('LISTEN_')], take_sockets())"
    )
    numbers = [each.fileno() for each in sockets]
    done = subprocess.run(
        [sys.executable, "-c", HAND_OVER, *map(str, numbers), sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=numbers,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[each.getsockname()[1] for each in sockets]} [False, False] [] []\n"


def twice(stack: contextlib.ExitStack) -> list[socket.socket]:
    made = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
    return [made, stack.enter_context(socket.create_server(made.getsockname(), reuse_port=True))]


def datagrams(stack: contextlib.ExitStack) -> list[socket.socket]:
    made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.bind(("127.0.0.1", 0))
    return [made]


def silent(stack: contextlib.ExitStack) -> list[socket.socket]:
    made = stack.enter_context(socket.socket())
    made.bind(("127.0.0.1", 0))
    return [made]


def of_the_kernel(stack: contextlib.ExitStack) -> list[socket.socket]:
    """Whose address is made of numbers alone."""
    return [stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))]


def both_families(stack: contextlib.ExitStack) -> list[socket.socket]:
    return [stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (twice, "twice"),
        (datagrams, "ListenStream="),
        (silent, "ListenStream="),
        (of_the_kernel, "AF_NETLINK"),
        (both_families, "BindIPv6Only=ipv6-only"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(opened: contextlib.ExitStack, make, why: str) -> None:
    sockets = make(opened)
    with pytest.raises(UnusableSocket, match=why):
        SystemdSockets(sockets)
