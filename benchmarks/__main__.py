"""`make bench`: both servers, every scenario, interleaved; a table, and an exit status that says if a row is missing.

python -m benchmarks [--only WORD] [--rounds N]
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import click
from attrs import frozen
from rich.console import Console
from rich.table import Table

from benchmarks import idle, latency, relay
from benchmarks.mail import copy, fill
from benchmarks.scenarios import SCENARIOS, Accounts, Scenario
from benchmarks.servers import Ours, Side, Theirs
from tests.dovecot import Dovecot, available
from tests.server import Server

USERS = 110


@frozen
class Row:
    """One line of the table."""

    name: str
    ours: float
    theirs: float
    unit: str
    target: float
    spread: float

    @property
    def ratio(self) -> float:
        """Ours to Dovecot's."""
        return self.ours / self.theirs if self.theirs else float("inf")


def measure(scenario: Scenario, side: Side, accounts: Accounts) -> float:
    """Microseconds of server CPU per operation, of one round."""
    work = scenario.work(side, accounts)
    next(work)
    before = side.cpu()
    operations = next(work)
    spent = side.cpu() - before
    assert operations
    for _ in work:
        raise AssertionError("a scenario yields twice")
    return spent / operations * 1e6


def run(scenario: Scenario, sides: tuple[Side, Side], accounts: Accounts, rounds: int | None) -> Row:
    """Both sides in turn, the medians, and the spread of the ratios."""
    figures: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds or scenario.rounds):
        for at in (0, 1) if number % 2 == 0 else (1, 0):
            figures[at].append(measure(scenario, sides[at], accounts))
    ours, theirs = (statistics.median(each) for each in figures)
    ratios = [a / b for a, b in zip(*figures, strict=True) if b]
    spread = max(ratios) / max(min(ratios), 1e-9) if ratios else float("inf")
    return Row(scenario.name, ours, theirs, "us", scenario.target, spread)


def prepare(directory: Path, sink: relay.Sink) -> tuple[Ours, Theirs, Accounts]:
    """Both servers running on the same mail, with the same passwords, kept in clear so that no hash hides the rest."""
    directory.chmod(0o755)
    server = Server(directory / "ours", users=USERS)
    text = server.config.read_text()
    text = re.sub(r'(protocol = "(?:imap|pop3|submission)"\n)', r"\1allow_cleartext = true\n", text)
    text += "\n[limits]\nsessions_per_user = 10000\nunauthenticated_per_address = 10000\n"
    text += f'\n[submission.relay]\nhost = "127.0.0.1"\nport = {sink.port}\ntls = "none"\n'
    server.config.write_text(text)
    (server.dir / "users").write_text(
        "".join(f"{name}:{{PLAIN}}{word}::::::\n" for name, word in server.accounts.items())
    )
    names = [name for name in server.accounts if name.startswith("u")]
    k1, k10, k100, scratch, lmtp, *rest = names
    accounts = Accounts(server.accounts, k1, k10, k100, scratch, lmtp, tuple(rest[:100]))
    root = directory / "theirs-mail"
    root.mkdir()
    key, pem = server.dir / "certs" / "mail.example.test.key", server.dir / "certs" / "mail.example.test.pem"
    dovecot = Dovecot(
        directory / "theirs",
        root,
        server.accounts,
        owner="mail",
        certificate=pem,
        key=key,
        protocols="imap pop3 lmtp submission",
        more=f"submission_relay_host = 127.0.0.1\nsubmission_relay_port = {sink.port}\n",
    )
    ours, theirs = Ours(server), Theirs(dovecot, server.ca)
    for size, users in ((1000, (k1, *accounts.idle)), (10_000, (k10,)), (100_000, (k100,))):
        seed = directory / "seeds" / str(size)
        fill(seed, size)
        for user in users:
            for side in (ours, theirs):
                copy(seed, side.maildir(user))
    dovecot.own(root)
    server.start()
    dovecot.start()
    return ours, theirs, accounts


def show(console: Console, rows: list[Row]) -> None:
    """The table."""
    table = Table("scenario", "ours", "Dovecot", "ratio", "target", "spread", title="server CPU per operation")
    for row in rows:
        over = row.ratio > row.target
        table.add_row(
            row.name,
            f"{row.ours:,.1f} {row.unit}",
            f"{row.theirs:,.1f} {row.unit}",
            f"[{'red' if over else 'green'}]{row.ratio:.2f}{' over' if over else ''}[/]",
            f"{row.target:g}",
            f"{row.spread:.1f}",
        )
    console.print(table)


@click.command()
@click.option("--only", default="", help="Scenarios whose name contains this.")
@click.option("--rounds", type=int, default=None, help="Rounds of each scenario.")
def main(only: str, rounds: int | None) -> None:
    """Run the scenarios and print the table."""
    console = Console(width=max(110, Console().width))
    if not available():
        console.print(
            "a Dovecot to compare with is needed: as root, apt-get install dovecot-imapd dovecot-pop3d dovecot-lmtpd"
        )
        sys.exit(2)
    os.umask(0o022)
    missing = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mailserver-bench-") as name:
        sink = relay.Sink()
        sink.start()
        ours, theirs, accounts = prepare(Path(name), sink)
        try:
            for scenario in SCENARIOS:
                if only.lower() not in scenario.name.lower():
                    continue
                try:
                    rows.append(run(scenario, (ours, theirs), accounts, rounds))
                except (AssertionError, OSError) as error:
                    console.print(f"[red]{scenario.name}: {type(error).__name__}: {str(error)[:500]}[/]")
                    missing.append(scenario.name)
                else:
                    row = rows[-1]
                    console.print(f"{row.name}: {row.ours:,.1f} / {row.theirs:,.1f} us = {row.ratio:.2f}")
            for label, special in (
                ("idle", idle.measure),
                ("latency", latency.measure),
                ("relay", partial(relay.measure, sink=sink)),
            ):
                if only.lower() not in label:
                    continue
                try:
                    rows.extend(Row(*figures) for figures in special(ours, theirs, accounts))
                except (AssertionError, OSError) as error:
                    console.print(f"[red]{label}: {type(error).__name__}: {str(error)[:500]}[/]")
                    missing.append(label)
        finally:
            ours.server.stop()
            theirs.dovecot.stop()
    show(console, rows)
    if missing:
        console.print(f"[red]missing: {', '.join(missing)}[/]")
        sys.exit(1)


main()
