"""The text index of 10,000 messages: the time until it is there after the first search of their text, its CPU and size."""

from __future__ import annotations

import time

from benchmarks.accounts import SIZES, Accounts
from benchmarks.corpus import RARE
from benchmarks.report import Section
from benchmarks.scenarios.scenario import forget_texts
from benchmarks.servers import Mailserver


def measure(ours: Mailserver, accounts: Accounts) -> Section:
    """Return the table; Dovecot has no index of texts by default."""
    user, maildir = accounts.k10, ours.maildir(accounts.k10)
    mail = sum(path.stat().st_size for path in (maildir / "cur").iterdir())
    forget_texts(ours, accounts, user)
    client = accounts.imap(ours, user)
    before, start = ours.cpu(), time.monotonic()
    client.command(b'SEARCH TEXT "%b"' % RARE.encode())
    searched, search_cpu = time.monotonic(), ours.cpu()
    ours.wait_for_texts(user, SIZES["k10"])
    made, cpu = time.monotonic(), ours.cpu()
    client.close()
    size = sum(path.stat().st_size for path in maildir.glob("mailserver-text*"))
    lines = [
        ["first search of the text, s", f"{searched - start:.1f}"],
        ["its CPU, s", f"{search_cpu - before:.1f}"],
        ["until the index is there, s", f"{made - start:.1f}"],
        ["CPU of all, s", f"{cpu - before:.1f}"],
        ["size of the index, MiB", f"{size / 2**20:.1f}"],
        ["size of the messages, MiB", f"{mail / 2**20:.1f}"],
    ]
    return Section(f"Text index of {SIZES['k10']:,} messages", ["what", "ours"], lines)
