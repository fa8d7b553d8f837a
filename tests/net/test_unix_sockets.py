"""Unix sockets whose directory is another's: nothing but the socket that was made gets a mode or an owner."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailserver.net.listeners import unix_sockets
from mailserver.net.listeners.unix_sockets import bind_unix


def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o077, 0o000):
        for mode in (0o666, 0o600):
            before = os.umask(umask)
            try:
                with bind_unix(tmp_path / "made", mode, (os.getuid(), os.getgid())):
                    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == mode
            finally:
                os.umask(before)


def test_it_is_not_open_before_its_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def chmod(path: str, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(tmp_path / "made"))
        tried.append((path, mode))

    monkeypatch.setattr(unix_sockets.os, "chmod", chmod)
    with bind_unix(tmp_path / "made", 0o600), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "made"))
    assert [mode for _path, mode in tried] == [0o600]


def symbolic(victim: Path, path: Path) -> None:
    path.symlink_to(victim)


def hard(victim: Path, path: Path) -> None:
    path.hardlink_to(victim)


def a_file(path: Path) -> None:
    path.touch()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("link", [symbolic, hard])
@pytest.mark.parametrize("make", [a_file, a_socket])
def test_what_is_put_in_its_place_is_left_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    link: Callable[[Path, Path], None],
    make: Callable[[Path], None],
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "made"
    make(victim)
    victim.chmod(0o600)
    before = victim.stat()

    class Swapped(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            path.unlink()
            link(victim, path)

    monkeypatch.setattr(unix_sockets.socket, "socket", Swapped)
    with pytest.raises(OSError, match="put in place of the socket"):
        bind_unix(path, 0o666, (os.getuid(), os.getgid()))
    after = victim.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
