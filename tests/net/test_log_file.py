"""The log file: what comes before it is opened, a disk without room, and another observer beside it."""

import os
from pathlib import Path

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from mailserver.net.log.events import log
from mailserver.net.log.log_file import LogFile, make_log_file
from mailserver.net.log.process_log import ProcessLog


def say(observer: LogFile, text: str) -> None:
    observer({"log_format": "{text}", "text": text, "log_time": 0.0, "log_level": LogLevel.info, "log_namespace": "x"})


def test_lines_before_it_is_open_are_repeated_in_it(tmp_path: Path) -> None:
    first: list[str] = []
    observer = LogFile(tmp_path / "log", lambda event: first.append(event["text"]))
    say(observer, "before")
    observer.open()
    say(observer, "after")
    assert first == ["before"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["before", "after"]


def test_what_utf_8_cannot_carry_is_shown(tmp_path: Path) -> None:
    observer = LogFile(tmp_path / "log", None)
    observer.open()
    say(observer, "a\udcffb")
    assert "a\\udcffb\n" in (tmp_path / "log").read_text()


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"cannot write the log file .*: No such file"):
        LogFile(tmp_path / "none" / "log", None).open()


@pytest.mark.parametrize("read", [False, True])
def test_a_pipe_put_in_its_place_is_not_written_to(tmp_path: Path, read: bool) -> None:
    path = tmp_path / "log"
    observer = LogFile(path, None)
    observer.open()
    lines = ProcessLog("0", relayed=False)
    lines.open(path)
    path.rename(tmp_path / "log.1")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if read else None
    observer.reopen()
    lines.reopen(path)
    for _ in range(2000):
        say(observer, "x" * 100)
    if reader is not None:
        os.close(reader)
    assert (tmp_path / "log.1").read_text().count("x" * 100) == 2000


def test_twistds_own_logger_stays_and_the_file_is_added(tmp_path: Path) -> None:
    observer = make_log_file(tmp_path / "log", {"logger": object(), "nodaemon": True, "logfile": None})
    observer.open()
    try:
        log.info("once", event="test")
    finally:
        globalLogPublisher.removeObserver(observer)
    assert (tmp_path / "log").read_text().count("once") == 1


def test_a_logfile_of_twistd_gets_the_start(tmp_path: Path) -> None:
    observer = make_log_file(tmp_path / "log", {"logger": None, "nodaemon": False, "logfile": str(tmp_path / "old")})
    say(observer, "before")
    observer.open()
    say(observer, "after")
    assert (tmp_path / "old").read_text().splitlines()[0].endswith("before")
    assert "after" not in (tmp_path / "old").read_text()


def test_a_full_disk_loses_lines_and_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    observer = LogFile(path, None)
    observer.open()
    say(observer, "lost")
    say(observer, "lost")
    path.unlink()
    observer.reopen()
    say(observer, "kept")
    say(observer, "more")
    lines = path.read_text().splitlines()
    assert lines[0].endswith("] 2 lines of the log found no room event=log-lines-lost")
    assert [line.rpartition(" ")[2] for line in lines[1:]] == ["kept", "more"]
