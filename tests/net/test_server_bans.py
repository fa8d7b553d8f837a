"""The table of bans in the master: read, gathered, written in a thread, and asked for by the administrator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from mailserver.auth.throttling.ban_file import STEP
from mailserver.auth.throttling.banned_clients import MAX_BANS, BanChange
from mailserver.auth.throttling.guess_counts import Guess
from mailserver.auth.throttling.known_networks import KnownNetworks
from mailserver.config.model import Bans, Listener
from mailserver.net.admin.control_socket import BadRequest, DataAnswer
from mailserver.net.log.format import body_of, json_of, text_of
from mailserver.net.service.server_bans import FILE, SAVE_AFTER, ServerBans
from tests.net.test_exposures import Reactor

ATTACKER = "192.0.2.7"


class Config:
    """The tables of a configuration that matter here."""

    bans = Bans()
    listeners = (Listener("imap", proxy_from=("198.51.100.0/24",)),)


class Site:
    def __init__(self, directory: Path) -> None:
        self.reactor = Reactor()
        self.now, self.wall = 100.0, 1_800_000_000.0
        known = KnownNetworks()
        known.add(("root", "203.0.113.0/24"))
        self.bans = ServerBans(self.reactor, directory / "state", known, lambda: self.now, lambda: self.wall)
        self.bans.load(Config())  # type: ignore[arg-type]
        self.sent: list[BanChange] = []
        self.bans.send = self.sent.extend
        self.path = directory / "state" / FILE

    def ask(self, command: str, **arguments: object) -> DataAnswer:
        results: list[DataAnswer] = []
        self.bans.commands()[command](arguments).addCallback(results.append)
        [answer] = results
        json.dumps(answer.data)
        return answer

    def add(self, client: str, **arguments: str) -> DataAnswer:
        return self.ask("bans-add", client=client, reason="", **arguments)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def guess(number: int, peer: str = ATTACKER, shown: str = "anna@example.test") -> Guess:
    return Guess(peer, f"user{number}", shown, f"{number}", "imap", "7KQF-2M9X")


def test_changes_are_gathered_written_once_and_read_at_the_next_start(site: Site, tmp_path: Path) -> None:
    for number in range(50):
        assert site.add(f"192.0.2.{number}").ok
    assert len(site.sent) == 50
    assert not site.path.exists()
    site.reactor.advance(0)
    assert site.reactor.work() == 1, "the first one is written at once"
    assert site.path.stat().st_mode & 0o777 == 0o600
    again = Site(tmp_path)
    assert len(again.bans) == 50
    site.reactor.advance(100 * SAVE_AFTER)
    assert site.reactor.work() == 0, "nothing has changed"


def test_a_ban_right_after_another_one_is_written_a_second_later(site: Site, tmp_path: Path) -> None:
    site.add(ATTACKER)
    site.reactor.advance(0)
    assert site.reactor.work() == 1
    site.add("192.0.2.8")
    site.add("192.0.2.9")
    site.reactor.advance(SAVE_AFTER * 0.9)
    assert site.reactor.work() == 0
    site.reactor.advance(SAVE_AFTER * 0.2)
    assert site.reactor.work() == 1
    assert len(Site(tmp_path).bans) == 3


@pytest.mark.parametrize("ends", [False, True], ids=["goes-on", "ends"])
def test_a_ban_while_the_file_is_read_does_not_replace_it_by_a_part(site: Site, tmp_path: Path, *, ends: bool) -> None:
    for number in range(3 * STEP):
        site.bans.bans.add(f"11.0.{number >> 8}.{number & 255}", "", None, force=False)
    site.reactor.advance(0)
    site.reactor.work()
    again = Site(tmp_path)
    assert len(again.bans) == STEP
    again.add(ATTACKER)
    if ends:
        again.bans.stop()
    else:
        assert again.reactor.work() == 0
        for _ in range(5):
            again.reactor.advance(SAVE_AFTER)
    assert again.reactor.work() == 1
    assert len(again.bans) == 3 * STEP + 1
    whole = Site(tmp_path)
    whole.reactor.pump([0.0] * 5)
    assert len(whole.bans) == 3 * STEP + 1


def test_the_end_writes_what_is_not_written_and_what_came_meanwhile(site: Site, tmp_path: Path) -> None:
    site.add(ATTACKER)
    site.reactor.advance(SAVE_AFTER)
    site.add("192.0.2.8")
    ended: list[None] = []
    site.bans.stop().addCallback(ended.append)
    assert not ended
    while site.reactor.work():
        pass
    assert ended == [None]
    assert len(Site(tmp_path).bans) == 2


def test_a_damaged_file_is_set_aside(site: Site, tmp_path: Path) -> None:
    site.path.parent.mkdir()
    site.path.write_bytes(b"junk")
    with capturedLogs() as events:
        again = Site(tmp_path)
    assert "is set aside" in str(body_of(events[0]))
    assert again.path.with_suffix(".damaged").read_bytes() == b"junk"
    assert again.add(ATTACKER).ok


def test_a_directory_that_cannot_be_written_is_logged_once(site: Site) -> None:
    site.path.parent.write_text("a file")
    with capturedLogs() as events:
        for number in range(3):
            site.add(f"192.0.2.{number}")
            site.reactor.advance(SAVE_AFTER)
            site.reactor.work()
    assert len([event for event in events if "until the server stops" in str(body_of(event))]) == 1
    assert len(site.bans) == 3


def test_a_hundred_thousand_bans_are_written_and_read(site: Site, tmp_path: Path) -> None:
    site.path.parent.mkdir()
    rows = [
        {
            "client": f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}",
            "since": 1,
            "until": 4e9,
            "times": 1,
            "by": "server",
            "reason": "",
        }
        for n in range(MAX_BANS)
    ]
    head = {"mailserver bans": 1, "rows": MAX_BANS}
    site.path.write_text("".join(json.dumps(row) + "\n" for row in [head, *rows]))
    again = Site(tmp_path)
    assert len(again.bans) == STEP, "the start does not wait for all of them"
    again.sent.clear()
    steps: list[list[BanChange]] = []
    again.bans.send = steps.append
    again.reactor.advance(0)
    assert len(again.bans) == len(again.bans.bans.changes()) == MAX_BANS
    assert [len(step) for step in steps] == [STEP] * (MAX_BANS // STEP - 1), "the workers have the others"
    assert again.reactor.work() == 0, "the file is as it was"
    again.bans.send = again.sent.extend
    assert again.add(ATTACKER).ok
    assert MAX_BANS * 0.98 < len(again.bans) <= MAX_BANS
    assert {client for client, seconds in again.sent if seconds > 0} == {0xC0000207}


def test_new_guesses_are_lines_of_one_form_and_a_ban_is_one_line(site: Site) -> None:
    with capturedLogs() as events:
        for number in [*range(10), 0, 1]:
            site.bans.take(guess(number))
        site.bans.take(guess(99, peer="no address"))
    lines = [str(body_of(event)) for event in events if event["event"] == "guess"]
    assert (
        lines
        == ["guess v1 peer=192.0.2.7 user=anna@example.test protocol=imap id=7KQF-2M9X"] * 10
        + [
            # Ten are forgotten with the ban; those on their way are new.
            "guess v1 peer=192.0.2.7 user=anna@example.test protocol=imap id=7KQF-2M9X"
        ]
        * 2
    )
    [banned] = [str(body_of(event)) for event in events if event["event"] == "banned"]
    assert banned.startswith("192.0.2.7 is banned for 3600 seconds: tried 10 names within 10 minutes event=banned")


@pytest.mark.parametrize(
    "forged",
    ["x\nguess v1 peer=9.9.9.9", 'x" peer=9.9.9.9 user="', "x peer=9.9.9.9", "\u2028guess v1 peer=9.9.9.9", "é\x1b[0m"],
)
def test_a_name_cannot_be_more_than_one_word_of_the_line(site: Site, forged: str) -> None:
    with capturedLogs() as events:
        site.bans.take(guess(1, shown=forged))
    [event] = events
    text, row = text_of(event), json_of(event)
    assert text is not None
    assert row is not None
    assert len(text.splitlines()) == 1
    assert 'guess v1 peer=192.0.2.7 user="' in text
    assert json.loads(row)["peer"] == ATTACKER
    assert len(row.encode().split(b"\n")) == 2


def test_proxies_are_never_banned(site: Site) -> None:
    answer = site.add("198.51.100.1", force="yes")
    assert not answer.ok
    assert answer.lines == (
        "198.51.100.1 is never banned: 198.51.100.0/24 is in [bans] never, or in proxy_from of a listener",
    )


def test_rows_have_the_end_by_the_present_clock(site: Site) -> None:
    site.add(ATTACKER, seconds="600")
    site.now += 100
    site.wall += 5_000_000
    [row] = site.ask("bans").data  # type: ignore[misc]
    assert row == {
        "client": ATTACKER,
        "reason": "",
        "by": "administrator",
        "since": 1_805_000_000 - 100,
        "until": 1_805_000_000 + 500,
        "seconds_left": 500,
        "times": 1,
    }


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x", "1e99"])
def test_a_time_that_is_none_is_refused(site: Site, seconds: str) -> None:
    answer = site.add(ATTACKER, seconds=seconds)
    assert not answer.ok
    assert answer.lines == ("a ban lasts 1 second to 366 days",)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("bans", {"x": "y"}),
        ("bans-add", {}),
        ("bans-add", {"client": ATTACKER, "reason": 5}),
        ("bans-add", {"client": ATTACKER, "reason": "a\nb"}),
        ("bans-add", {"client": ATTACKER, "reason": "x" * 201}),
        ("bans-add", {"client": ATTACKER, "reason": "", "more": "x"}),
        ("bans-remove", {}),
        ("bans-remove", {"client": 5}),
    ],
)
def test_malformed_requests_are_refused(site: Site, command: str, arguments: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        site.bans.commands()[command](arguments)
