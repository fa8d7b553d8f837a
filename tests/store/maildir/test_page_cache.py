"""Reads that never wait: whole files that the kernel has in memory, and nothing else."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
from pathlib import Path
from typing import Any

import pytest

from mailserver.store.maildir.disk import page_cache as module
from mailserver.store.maildir.disk.page_cache import LARGEST, PageCache, page_cache


@pytest.fixture
def cache() -> PageCache:
    found = page_cache()
    assert found is not None, "the tests need openat2(2) with RESOLVE_CACHED: Linux 5.12"
    return found


class _Kernel:
    """libc, whose calls are recorded, and may be given another result."""

    def __init__(self) -> None:
        self._libc = ctypes.PyDLL(None)
        self.calls: list[str] = []
        self.results: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        kernel, function = self, getattr(self._libc, name)

        class Recorded:
            def __setattr__(self, key: str, value: object) -> None:
                setattr(function, key, value)

            def __call__(self, *arguments: object) -> int:
                kernel.calls.append(name)
                return kernel.results[name] if name in kernel.results else int(function(*arguments))

        return Recorded()


def descriptors() -> int:
    # Those of garbage that earlier tests have left must not be closed in between.
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 70_000, LARGEST])
def test_a_file_in_memory_is_read_whole(tmp_path: Path, cache: PageCache, size: int) -> None:
    path = tmp_path / "message"
    path.write_bytes(os.urandom(size))
    before = descriptors()
    assert cache.read(os.fsencode(path)) == path.read_bytes()
    assert (cache.read_start(os.fsencode(path), 100) or b"") == path.read_bytes()[:100]
    assert descriptors() == before


def test_a_larger_file_is_not_read(tmp_path: Path, cache: PageCache) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x" * (LARGEST + 1))
    assert cache.read(os.fsencode(path)) is None


def test_what_is_no_regular_file_is_not_read(tmp_path: Path, cache: PageCache) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    before = descriptors()
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "link", tmp_path / "missing"):
        assert cache.read(os.fsencode(path)) is None
        assert cache.read_start(os.fsencode(path), 10) is None
    assert descriptors() == before


def test_a_file_that_is_in_memory_in_part_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x" * 100_000)
    kernel = _Kernel()
    kernel.results["preadv2"] = 65_536
    cut = PageCache(kernel)
    assert cut.read(os.fsencode(path)) is None
    assert kernel.calls == ["syscall", "preadv2", "preadv2", "close"]


def test_octets_that_are_not_in_memory_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x" * 100)
    kernel = _Kernel()
    kernel.results["preadv2"] = -errno.EAGAIN
    cold = PageCache(kernel)
    assert cold.read(os.fsencode(path)) is None
    assert cold.read_start(os.fsencode(path), 10) is None
    assert kernel.calls == ["syscall", "preadv2", "close"] * 2


def test_a_kernel_without_the_call_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _Kernel()
    kernel.results["syscall"] = -1
    monkeypatch.setattr(module.ctypes, "PyDLL", lambda _name: kernel)
    page_cache.cache_clear()
    try:
        assert page_cache() is None
        assert page_cache() is None
        assert kernel.calls == ["syscall"]
    finally:
        page_cache.cache_clear()
