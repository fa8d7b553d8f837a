"""The cache of orders: what it keeps, its bound, and what makes an entry worthless."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

from mailserver.store.live.order_cache import OrderCache


def made(count: int = 10, serial: int = 1, *, keeps: bool = True) -> tuple[SimpleNamespace, SimpleNamespace]:
    live = SimpleNamespace(serial=serial, account=SimpleNamespace(keeps=lambda _live: keeps))
    return live, SimpleNamespace(uids=array("I", range(1, count + 1)), count=count)


def test_an_answer_holds_for_the_same_messages_alone() -> None:
    cache = OrderCache()
    live, view = made()
    cache.keep_answer(live, view, "x", range(10), b"all")
    cache.keep_answer(live, view, "x", [1, 2], b"some")
    assert cache.answer(live, view, "x", range(10)) == b"all"
    assert cache.answer(live, view, "x", [1, 2]) == b"some"
    assert cache.answer(live, view, "x", [1, 3]) is None
    assert cache.answer(live, view, "x", range(9)) is None
    assert cache.answer(live, view, "y", range(10)) is None
    grown = SimpleNamespace(uids=view.uids, count=9)
    assert cache.answer(live, grown, "x", range(10)) is None
    replaced = SimpleNamespace(uids=array("I", view.uids), count=10)
    assert cache.answer(live, replaced, "x", range(10)) is None


def test_the_bound_is_in_octets() -> None:
    cache = OrderCache(octets=10_000)
    views = [made(100, serial) for serial in range(20)]
    for live, view in views:
        cache.keep_order(live, view, "program", range(100))
        cache.keep_answer(live, view, "x", range(100), b"y" * 300)
        assert cache.octets_kept <= 10_000
    assert cache.order(views[0][0], "program") is None, "the oldest goes first"
    assert cache.order(views[-1][0], "program") is not None
    assert cache.answer(*views[-1], "x", range(100)) == b"y" * 300
    live, view = made(100, 99)
    cache.keep_answer(live, view, "x", range(100), b"y" * 20_000)
    assert cache.answer(live, view, "x", range(100)) is None, "larger than all the room"
    for live, _view in views:
        cache.forget_mailbox(live)
    assert cache.octets_kept == 0


def test_nothing_is_kept_of_a_mailbox_that_was_dropped() -> None:
    cache = OrderCache()
    live, view = made(keeps=False)
    cache.keep_order(live, view, "program", range(10))
    assert cache.order(live, "program") is None
    assert cache.octets_kept == 0
