"""When certificates are asked for: at two thirds of their life, later after failures, each host by itself."""

from __future__ import annotations

import pytest

from mailserver.tls.acme.schedule import (
    AFTER_SUCCESS,
    LATEST_AGAIN,
    LONGEST_ASKED,
    LONGEST_WAIT,
    Attempts,
    CurrentCertificate,
    Window,
    due,
    plan,
    should_ask_window,
)

DAY = 86400
NOW = 1_800_000_000
HOST = "mail.example.test"


def held(days_old: float = 0, life: float = 90, host: str = HOST, *, self_signed: bool = False) -> CurrentCertificate:
    begin = NOW - int(days_old * DAY)
    return CurrentCertificate(host, begin, begin + int(life * DAY), self_signed)


@pytest.mark.parametrize(("life", "at"), [(90, 60), (45, 30), (6, 4)])
def test_two_thirds_of_a_life(life: float, at: float) -> None:
    assert due(held(life=life), Attempts(HOST), NOW).time == NOW + at * DAY


def test_a_self_signed_one_is_replaced_at_once() -> None:
    assert due(held(self_signed=True), Attempts(HOST), NOW).time <= NOW


def test_waits_double_up_to_half_a_day() -> None:
    attempts, waits = Attempts(HOST), []
    for _ in range(12):
        attempts = attempts.failed("no", NOW)
        waits.append(attempts.until - NOW)
    assert waits == [300 * 2**n for n in range(8)] + [LONGEST_WAIT] * 4
    assert due(held(self_signed=True), attempts, NOW).time == NOW + LONGEST_WAIT
    for _ in range(5000):
        attempts = attempts.failed("no", NOW)
    assert attempts.until - NOW == LONGEST_WAIT


def test_the_authority_may_have_us_wait_longer_but_not_for_ever() -> None:
    assert Attempts(HOST).failed("slow down", NOW, 3600).until == NOW + 3600
    assert Attempts(HOST).failed("slow down", NOW, 10).until == NOW + 300
    assert Attempts(HOST).failed("slow down", NOW, 10**12).until == NOW + LONGEST_ASKED


def test_a_success_ends_the_waits_and_an_old_certificate_asks_no_more_than_once_an_hour() -> None:
    attempts = Attempts(HOST).failed("no", NOW).succeeded(NOW)
    assert (attempts.failures, attempts.error) == (0, "")
    assert due(held(), attempts, NOW).time == NOW + 60 * DAY
    assert due(held(days_old=80), attempts, NOW).time == NOW + AFTER_SUCCESS


def test_a_clock_that_jumps_back_does_not_hold_up_for_long() -> None:
    attempts = Attempts(HOST).failed("no", NOW + 400 * DAY)
    assert due(held(self_signed=True), attempts, NOW).time == NOW + LONGEST_WAIT


def test_what_has_failed_least_comes_first() -> None:
    failing = Attempts("a").failed("no", NOW - 10 * DAY)
    hosts = [held(host="a", self_signed=True), held(70, host="b"), held(10, host="c"), held(80, host="d")]
    assert [each.host for each in plan(hosts, {"a": failing}, NOW)] == ["d", "b", "a", "c"]


def test_who_has_nothing_that_clients_take_comes_before_renewals_that_have_time() -> None:
    hosts = [held(700, 900, host="renewal"), held(host="first", self_signed=True), held(85, host="late")]
    assert [each.host for each in plan(hosts, {}, NOW)] == ["first", "late", "renewal"]


def test_domains_take_turns_and_those_that_fail_come_last() -> None:
    def of(domain: str, number: int) -> CurrentCertificate:
        return CurrentCertificate(f"{number}.{domain}", NOW, NOW + DAY, self_signed=True, domain=domain)

    hosts = [*(of("a", number) for number in range(3)), of("b", 0), of("c", 0)]
    failed = {"0.a": Attempts("0.a").failed("no", NOW - DAY)}
    assert [each.host for each in plan(hosts, failed, NOW)] == ["0.b", "0.c", "1.a", "2.a", "0.a"]
    assert next(each.host for each in plan(hosts[1:], {}, NOW, under_way=["a", "b"])) == "0.c"


def test_nothing_of_a_stranger_moves_the_terminal() -> None:
    assert Attempts(HOST).failed("\x1b[2Jno\n" + "x" * 10_000, NOW).error.startswith(" [2Jno xxx")
    assert len(Attempts(HOST).failed("x" * 10_000, NOW).error) == 500


def given(days_old: float = 0, of: str = "first", life: float = 90) -> CurrentCertificate:
    begin = NOW - int(days_old * DAY)
    return CurrentCertificate(
        HOST, begin, begin + int(life * DAY), self_signed=False, fingerprint=of, of_authority=b"chain"
    )


def test_the_authoritys_window_counts_for_the_certificate_that_it_is_of() -> None:
    window = Window(HOST, "first", NOW + 20 * DAY, NOW + 19 * DAY, NOW + 21 * DAY, NOW + 3600)
    assert due(given(), Attempts(HOST), NOW, window).time == NOW + 20 * DAY
    assert due(given(of="second"), Attempts(HOST), NOW, window).time == NOW + 60 * DAY
    nothing_said = Window(HOST, "first", 0, 0, 0, NOW + 3600)
    assert due(given(), Attempts(HOST), NOW, nothing_said).time == NOW + 60 * DAY
    assert [each.time for each in plan([given()], {}, NOW, {HOST: window})] == [NOW + 20 * DAY]


def test_a_window_that_has_passed_is_now_but_after_failures_not_before_their_wait() -> None:
    window = Window(HOST, "first", NOW - DAY, NOW - 2 * DAY, NOW - 3600, NOW + 3600)
    assert due(given(days_old=2), Attempts(HOST), NOW, window).time <= NOW
    assert due(given(days_old=2), Attempts(HOST).failed("no", NOW), NOW, window).time == NOW + 300


def test_an_authority_that_would_have_each_renewed_at_once_gets_one_order_a_day() -> None:
    window = Window(HOST, "first", NOW - DAY, NOW - 2 * DAY, NOW - 3600, NOW + 3600)
    assert due(given(), Attempts(HOST).succeeded(NOW), NOW, window).time == NOW + DAY
    assert due(given(life=1), Attempts(HOST).succeeded(NOW), NOW, window).time == NOW + DAY // 10


def test_no_window_lets_a_certificate_end() -> None:
    late = Window(HOST, "first", NOW + 5000 * DAY, NOW + 4000 * DAY, NOW + 6000 * DAY, NOW + 3600)
    assert due(given(), Attempts(HOST), NOW, late).time == NOW + 81 * DAY


def test_who_is_asked_about() -> None:
    window = Window(HOST, "first", 1, 1, 2, NOW + 3600)
    assert should_ask_window(given(), None, NOW)
    assert not should_ask_window(given(), window, NOW)
    assert should_ask_window(given(), window, NOW + 3600)
    assert should_ask_window(given(of="second"), window, NOW)
    assert not should_ask_window(held(), None, NOW), "one from elsewhere"
    assert not should_ask_window(given(days_old=91), None, NOW), "one that has ended (RFC 9773 4.3)"
    assert should_ask_window(given(), Window(HOST, "first", 1, 1, 2, NOW + LATEST_AGAIN + 1), NOW), (
        "the clock has jumped back"
    )
