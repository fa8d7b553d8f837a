"""The ring of records: what it keeps, what damages it, and who may write it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from attrs import asdict, evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.explain import find
from mailserver.explain.log import MAX_RECENT, REFUSED, REPEATED_AFTER, RETRY_AFTER, LoginLog
from mailserver.explain.record import TEXTS, BadRecord, Record
from mailserver.explain.ring import LONGEST, SLOT, SLOTS, Ring, RingUnusable, read_ring
from mailserver.explain.story import moment, story
from mailserver.explain.trace import MAX_CALLS, Call, Trace

NOW = 1_800_000_000.0


def numbers(path: Path) -> list[int]:
    return sorted(int(each) for each in read_ring(path))


def test_what_is_written_is_read_and_a_second_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    for start in (0, 3):
        ring = Ring(path)
        for number in range(start, start + 3):
            ring.write(b"%d" % number)
        ring.close()
    assert numbers(path) == [0, 1, 2, 3, 4, 5]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_oldest_are_overwritten_also_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    ring = Ring(path)
    for number in range(SLOTS + 10):
        ring.write(b"%d" % number)
    ring.close()
    assert numbers(path) == list(range(10, SLOTS + 10))
    ring = Ring(path)
    ring.write(b"%d" % (SLOTS + 10))
    ring.close()
    assert numbers(path) == list(range(11, SLOTS + 11))
    assert path.stat().st_size <= SLOTS * SLOT


@pytest.mark.parametrize("at", [0, 5, 13, 15, 18, 20, 40])
def test_a_torn_slot_is_left_out_and_the_others_are_read(tmp_path: Path, at: int) -> None:
    path = tmp_path / "ring"
    ring = Ring(path)
    for number in range(3):
        ring.write(b"%030d" % number)
    ring.close()
    with open(path, "r+b") as file:
        file.seek(SLOT + at)
        octet = file.read(1)
        file.seek(SLOT + at)
        file.write(bytes([octet[0] ^ 0xFF]))
    found = numbers(path)
    assert found in ([0, 2], [0, 1, 2])
    # The number of a slot is no part of its record.
    assert (found == [0, 2]) == (not 4 <= at < 12)


@given(st.binary(max_size=5 * SLOT))
@settings(max_examples=60)
def test_any_octets_are_read_and_written_on(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    path = tmp_path_factory.mktemp("ring") / "ring"
    path.write_bytes(octets)
    ring = Ring(path)
    ring.write(b"here")
    ring.close()
    assert b"here" in list(read_ring(path))


HUGE = "1" + "0" * 400
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["\ud800", "\0", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*TEXTS, "at", "names", "waited", "delay", "calls", "other"])


def is_skipped_or_readable(octets: bytes) -> bool:
    """Whether the record is read; if so, all that is made of it can be printed."""
    try:
        record = Record.of_octets(octets)
    except BadRecord:
        return False
    for line in (*story(record), moment(record.at)):
        line.encode("utf-8")
    json.dumps(asdict(record), allow_nan=False).encode("utf-8")
    return True


@pytest.mark.parametrize(
    ("octets", "is_read"),
    [
        ('{"at":1}', True),
        ('{"at":1,"calls":[["file","find",0.1,"yes"]]}', True),
        ('{"at":1e999}', False),
        ('{"at":NaN}', False),
        ('{"at":"1"}', False),
        (f'{{"at":{HUGE}}}', False),
        (f'{{"at":1,"waited":{HUGE}}}', False),
        ('{"at":1,"delay":Infinity}', False),
        (f'{{"at":1,"calls":[["a","b",{HUGE},"c"]]}}', False),
        ('{"at":1,"user":"\\ud800"}', False),
        ('{"at":1,"names":["\\udfff"]}', False),
        ('{"at":1,"user":["anna"]}', False),
        ('{"at":1,"calls":{"abcd":1}}', False),
        ("[" * 900, False),
        ("null", False),
    ],
    ids=[
        "least", "call", "endless", "nan", "text", "huge", "huge-wait", "endless-delay", "huge-call", "surrogate",
        "surrogate-name", "list-for-text", "calls-not-a-list", "nested", "null",
    ],
)  # fmt: skip
def test_a_record_is_whole_or_skipped(octets: str, is_read: bool) -> None:
    assert is_skipped_or_readable(octets.encode()) == is_read


@given(st.dictionaries(KEYS, VALUES, max_size=6) | VALUES, st.floats(0, 2e9))
@settings(max_examples=200)
def test_any_json_in_a_slot_is_skipped_or_can_be_printed(value: object, at: float) -> None:
    is_skipped_or_readable(json.dumps(value).encode())
    if isinstance(value, dict):
        is_skipped_or_readable(json.dumps({**value, "at": at}).encode())


@given(st.binary(max_size=LONGEST))
@settings(max_examples=100)
def test_any_octets_of_a_record_are_skipped_or_can_be_printed(octets: bytes) -> None:
    is_skipped_or_readable(octets)


def test_a_damaged_number_in_a_full_ring(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    ring = Ring(path)
    for number in range(SLOTS):
        ring.write(b"%d" % number)
    ring.close()
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 8)
    ring = Ring(path)
    ring.write(b"%d" % SLOTS)
    ring.close()
    assert numbers(path) == list(range(1, SLOTS + 1))


def test_a_record_of_any_size_fits_or_is_refused(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring")
    ring.write(b"x" * LONGEST)
    with pytest.raises(ValueError, match="fit"):
        ring.write(b"x" * (LONGEST + 1))
    ring.close()
    assert list(read_ring(tmp_path / "ring")) == [b"x" * LONGEST]


def test_a_killed_writer_leaves_whole_records(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mailserver.explain.ring import Ring\n"
        "ring = Ring(Path(sys.argv[1])); number = 0\n"
        "while True:\n"
        "    ring.write(b'%0900d' % number); number += 1\n"
        "    if number == 100: print('running', flush=True)\n"
    )
    path = tmp_path / "ring"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    found = numbers(path)
    assert len(found) >= 100
    assert found == list(range(found[0], found[0] + len(found)))
    ring = Ring(path)
    ring.write(b"%d" % (found[-1] + 1))
    ring.close()
    assert numbers(path)[-1] == found[-1] + 1


def test_links_pipes_and_directories_are_refused(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x" * 100)
    (tmp_path / "symlink").symlink_to(precious)
    (tmp_path / "hard").hardlink_to(precious)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("symlink", "hard", "pipe", "directory"):
        with pytest.raises((OSError, RingUnusable)):
            Ring(tmp_path / name)
        with pytest.raises((OSError, RingUnusable)):
            list(read_ring(tmp_path / name))
    assert precious.read_bytes() == b"x" * 100


def test_a_file_or_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "explain"
    Ring(tmp_path / "ring").close()
    said: list[str] = []
    LoginLog(path, "w", said.append).refused(Record(NOW, ref="0000-0001"))
    assert said == []
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(RingUnusable, match="another user"):
        Ring(tmp_path / "ring")
    LoginLog(path, "other", said.append).refused(Record(NOW, ref="0000-0002"))
    assert len(said) == 1
    assert [each.name for each in path.iterdir()] == [f"w{REFUSED}"]


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "explain"
    path.mkdir()
    path.chmod(0o777)
    said: list[str] = []
    LoginLog(path, "w", said.append).refused(Record(NOW, ref="0000-0001"))
    assert len(said) == 1
    assert list(path.iterdir()) == []


def test_what_cannot_be_written_is_said_once_and_tried_again(tmp_path: Path) -> None:
    now, said = [100.0], []
    log = LoginLog(tmp_path / "missing" / "explain", "w", said.append, clock=lambda: now[0])
    for _ in range(5):
        log.refused(Record(NOW, ref="0000-0001"))
        now[0] += RETRY_AFTER
    assert len(said) == 1
    (tmp_path / "missing").mkdir()
    now[0] += RETRY_AFTER
    log.refused(Record(NOW, ref="0000-0002"))
    log.close()
    (path,) = (tmp_path / "missing" / "explain").iterdir()
    assert [Record.of_octets(each).ref for each in read_ring(path)] == ["0000-0002"]


def test_a_full_disk_costs_one_line_and_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [100.0], []
    log = LoginLog(tmp_path / "explain", "w", said.append, clock=lambda: now[0])
    log.refused(Record(NOW, ref="0000-0001"))
    written = os.pwrite

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(3):
        log.refused(Record(NOW, ref="0000-0002"))
    assert len(said) == 1
    assert "No space" in said[0]
    monkeypatch.setattr(os, "pwrite", written)
    now[0] += RETRY_AFTER
    log.refused(Record(NOW, ref="0000-0003"))
    log.close()
    found = [Record.of_octets(each).ref for each in read_ring(tmp_path / "explain" / f"w{REFUSED}")]
    assert found == ["0000-0001", "0000-0003"]


def test_the_same_login_is_kept_once_in_a_while(tmp_path: Path) -> None:
    now = [0.0]
    log = LoginLog(tmp_path / "explain", "w", [].append, clock=lambda: now[0])
    for _ in range(10):
        for user in ("anna", "bert"):
            log.logged_in(Record(NOW, user=user, protocol="imap"))
        now[0] += REPEATED_AFTER / 4
    for number in range(MAX_RECENT + 10):
        log.logged_in(Record(NOW, user=f"user{number % 20_000}"))
    assert len(log._recent) <= MAX_RECENT
    log.close()
    found = find.read_records(tmp_path / "explain", 100_000, logins=True).records
    assert Counter(each.user for each in found)["anna"] <= 3


def test_a_login_with_another_password_or_by_a_delegate_is_another_login(tmp_path: Path) -> None:
    log = LoginLog(tmp_path / "explain", "w", [].append, clock=lambda: 0.0)
    of_anna = Record(NOW, user="anna", protocol="imap", method="PLAIN", peer="192.0.2.1")
    kept = [of_anna, evolve(of_anna, credential="phone"), evolve(of_anna, delegate="admin")]
    for record in kept * 3:
        log.logged_in(record)
    log.close()
    assert find.read_records(tmp_path / "explain", 100_000, logins=True).records == kept


texts = st.text(max_size=400) | st.text('€\0"\\\n', max_size=10_000)


@given(st.dictionaries(st.sampled_from(TEXTS), texts), st.lists(texts, max_size=4), st.floats(0, 1e9))
def test_any_record_fits_into_a_slot_and_is_read_again(found: dict[str, str], names: list[str], seconds: float) -> None:
    trace = Trace()
    for _ in range(MAX_CALLS + 3):
        trace.called("b" * 300, "verify", seconds, "unavailable")
    assert len(trace.calls) == MAX_CALLS
    record = Record(NOW, names=tuple(names), waited=seconds, delay=seconds, calls=tuple(trace.calls), **found)
    octets = record.to_octets(LONGEST)
    assert len(octets) <= LONGEST
    again = Record.of_octets(octets)
    assert again.at == NOW
    for key, text in found.items():
        kept = getattr(again, key)
        assert kept == text.encode("utf-8", "replace").decode() or kept.endswith("…")


@given(st.binary(max_size=200) | st.sampled_from([b"[]", b"{}", b'{"at":"x"}', b'{"at":1,"calls":[1]}', b"[" * 2000]))
def test_other_octets_are_no_record(octets: bytes) -> None:
    with pytest.raises(BadRecord):
        Record.of_octets(octets)


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find.read_records(tmp_path / "none", 7).records == []
    directory = tmp_path / "explain"
    for worker in (1, 2):
        log = LoginLog(directory, f"worker-{worker}", [].append)
        for day in range(10):
            at = NOW - day * find.DAY - worker
            log.refused(Record(at, ref=f"{worker:04}-{day:04}", typed="Anna@Example.Test", peer=f"192.0.2.{worker}"))
        log.refused(Record(NOW + find.DAY, ref="FFFF-FFFF", calls=(Call("ldap", "find", 0.1, "yes"),)))
        log.logged_in(Record(NOW - 50, user="anna@example.test"))
        log.close()
    (directory / f"worker-3{REFUSED}").symlink_to("/etc/passwd")
    (directory / "other").write_text("x")
    monkeypatch.setattr("time.time", lambda: NOW)
    found = find.read_records(directory, 7)
    assert len(found.records) == 2 * 7 + 2, "older ones are not shown; one from the future is"
    assert len(found.faults) == 1
    assert [each.at for each in found.records] == sorted(each.at for each in found.records)
    assert find.by_ref(found.records, "0002-0003") is not None
    assert find.by_ref(found.records, "0002-0009") is None
    assert len(find.of_user(found.records, "anna@example.test")) == 14
    assert len(find.of_peer(found.records, "192.0.2.2")) == 7
    with_logins = find.read_records(directory, 7, logins=True).records
    assert len(find.of_user(with_logins, "anna@example.test")) == 16
