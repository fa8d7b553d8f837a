"""`make bench`: Dovecot and ours, every scenario, interleaved; tables, and an exit status that says if one is missing.

python -m benchmarks [--only WORD] [--rounds N] [--markdown FILE] [--large] [--workers N] [--dovecot-defaults]

Costs of single operations are those of ours in one process, by its fast transports and by stock ones; loads are those of
as many workers as there are processors.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
from attrs import define, field
from rich.console import Console
from rich.markup import escape

from benchmarks import growth, idle, latency, mixed, relay, restarts
from benchmarks.mail import copy, fill
from benchmarks.plot import can_draw, draw
from benchmarks.report import Report, Row, Section
from benchmarks.scenarios import SCENARIOS, Accounts, Scenario
from benchmarks.servers import DovecotServer, Mailserver, StockMailserver, TestedServer, room_for_inotify
from benchmarks.settings import TUNED
from mailserver.tap import usable_processors
from tests.dovecot import Dovecot, available
from tests.server import Server

USERS = 110


LEAST = 0.05
"""Least seconds of CPU of the costlier server in a round; the work is repeated until then, as less says little."""
MOST_WORK = 10.0
"""Seconds after which the work of a round is not repeated any more."""
LARGE = 1_000_000
"""Messages of the largest mailbox, with --large."""
LARGE_IDLE = 5000
OF_MAILBOXES = "growth with mailboxes"


def work_once(scenario: Scenario, side: TestedServer, accounts: Accounts) -> tuple[int, float]:
    """Run a scenario once; return the number of operations and seconds of server CPU."""
    work = scenario.work(side, accounts)
    next(work)
    before = side.cpu()
    operations = next(work)
    spent = side.cpu() - before
    assert operations
    for _ in work:
        raise AssertionError("a scenario yields twice")
    return operations, spent


def measure(scenario: Scenario, sides: Sequence[TestedServer], accounts: Accounts, first: int) -> list[float]:
    """Return microseconds of server CPU per operation in one round: all servers in turn, until there is enough to compare."""
    operations, spent = [0] * len(sides), [0.0] * len(sides)
    start = time.monotonic()
    while max(spent) < LEAST and time.monotonic() - start < MOST_WORK:
        for number in range(len(sides)):
            at = (first + number) % len(sides)
            more, cost = work_once(scenario, sides[at], accounts)
            operations[at] += more
            spent[at] += cost
    return [cost / count * 1e6 for cost, count in zip(spent, operations, strict=True)]


def run(scenario: Scenario, sides: Sequence[TestedServer], accounts: Accounts, rounds: int | None) -> Row:
    """Return the medians, and the spread of the ratios; `sides` are ours, Dovecot, and ours with stock transports."""
    figures = [measure(scenario, sides, accounts, number) for number in range(rounds or scenario.rounds)]
    ours, theirs, stock = (statistics.median(each) for each in zip(*figures, strict=True))
    ratios = [a / b for a, b, _stock in figures if b]
    spread = max(ratios) / max(min(ratios), 1e-9) if ratios else float("inf")
    return Row(scenario.name, ours, theirs, "us", scenario.target, spread, stock)


def _make_ours(directory: Path, sink: relay.Sink, workers: int, transport: str) -> Server:
    server = Server(directory, users=USERS, workers=workers)
    text = server.config.read_text()
    text = re.sub(r'(protocol = "(?:imap|pop3|submission)"\n)', r"\1allow_cleartext = true\n", text)
    text = re.sub(r"(?m)^transport = .*$", f'transport = "{transport}"', text)
    text += "\n[limits]\nconnections = 10100\nsessions_per_user = 10000\nunauthenticated_per_address = 10000\n"
    text += f'\n[submission.relay]\nhost = "127.0.0.1"\nport = {sink.port}\ntls = "none"\n'
    server.config.write_text(text)
    (server.dir / "users").write_text(
        "".join(f"{name}:{{PLAIN}}{word}::::::\n" for name, word in server.accounts.items())
    )
    return server


def prepare(
    directory: Path, sink: relay.Sink, *, large: bool = False, workers: int = 0, settings: str = TUNED
) -> tuple[Mailserver, DovecotServer, StockMailserver, Accounts]:
    """Start all servers on the same mail, with the same passwords in clear, so that no hash hides the rest."""
    directory.chmod(0o755)
    server = _make_ours(directory / "ours", sink, workers, Mailserver.transport)
    second = _make_ours(directory / "stock", sink, workers, StockMailserver.transport)
    (second.dir / "users").write_text((server.dir / "users").read_text())
    names = [name for name in server.accounts if name.startswith("u")]
    k1, k10, k100, scratch, lmtp, huge, *rest = names
    accounts = Accounts(server.accounts, k1, k10, k100, scratch, lmtp, huge, tuple(rest[:100]))
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
        more=f"submission_relay_host = 127.0.0.1\nsubmission_relay_port = {sink.port}\n{settings}",
    )
    theirs = DovecotServer(dovecot, server.ca)
    seeds = [(1000, (k1, *accounts.idle)), (10_000, (k10,)), (100_000, (k100,))]
    if large:
        seeds.append((LARGE, (accounts.large,)))
    for size, users in seeds:
        seed = directory / "seeds" / str(size)
        fill(seed, size)
        for user in users:
            copy(seed, server.maildir(user))
            copy(seed, theirs.maildir(user))
        if users[0] != accounts.large:
            copy(seed, second.maildir(users[0]))
    dovecot.own(root)
    server.start()
    second.start()
    dovecot.start()
    # A server whose ports were taken meanwhile has others once it is started.
    return Mailserver(server), theirs, StockMailserver(second), accounts


@define
class Run:
    """One run over all servers."""

    ours: Mailserver
    theirs: DovecotServer
    stock: StockMailserver
    accounts: Accounts
    sink: relay.Sink
    console: Console
    only: str
    workers: int
    report: Report = field(factory=Report)

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """Measure if `--only` asks for it; a failure is noted in the report, and the run continues."""
        if self.only not in name.lower():
            return
        try:
            work()
        except (AssertionError, OSError) as error:
            self.console.print(f"[red]{name}: {type(error).__name__}: {escape(str(error)[-600:])}[/]")
            self.report.missing.append(name)

    def add(self, row: Row) -> None:
        """Add a row and print it."""
        self.report.rows.append(row)
        self.console.print(f"{row.name}: {row.ours:,.1f} / {row.theirs:,.1f} {row.unit} = {row.ratio:.2f}")
        if row.stock is not None:
            self.console.print(f"    with stock transports {row.stock_cost}: {row.stock / row.ours:.2f} of it")

    def scenarios(self, rounds: int | None) -> None:
        """Measure every scenario, and the rows that are measured in another way."""
        sides, accounts = (self.ours, self.theirs, self.stock), self.accounts
        for scenario in SCENARIOS:
            self.attempt(scenario.name, lambda scenario=scenario: self.add(run(scenario, sides, accounts, rounds)))
        for figures in (partial(relay.measure, sink=self.sink), latency.measure):
            name = "submission with relay" if isinstance(figures, partial) else "latency while 100k are opened"
            self.attempt(name, lambda figures=figures: self.add(figures(sides, accounts)))

    def loads(self, *, large: bool, plot: Path | None) -> None:
        """Measure idle connections, growth, restarts, and last the mixed loads, which change mailboxes."""
        ours, theirs, accounts, sections = self.ours, self.theirs, self.accounts, self.report.sections
        curves: list[growth.Curve] = []

        def idle_connections(count: int) -> None:
            rows, section = idle.measure(ours, theirs, accounts, count)
            for row in rows:
                self.add(row)
            sections.append(section)

        def of_mailboxes() -> None:
            sizes = {accounts.k1: 1000, accounts.k10: 10_000, accounts.k100: 100_000}
            if large:
                sizes[accounts.large] = LARGE
            curves.extend(growth.of_mailboxes(ours, theirs, accounts, sizes))

        def of_connections() -> None:
            counts = growth.CONNECTIONS + (growth.LARGE_CONNECTIONS if large else ())
            curves.extend(growth.of_connections(ours, theirs, accounts, counts))

        for count in (idle.CONNECTIONS, LARGE_IDLE) if large else (idle.CONNECTIONS,):
            self.attempt(f"idle connections, {count}", partial(idle_connections, count))
        self.attempt(OF_MAILBOXES, of_mailboxes)
        self.attempt("growth with connections", of_connections)
        workers = usable_processors()
        self.attempt("growth with workers", lambda: curves.extend(growth.of_workers(ours, theirs, accounts, workers)))
        if curves:
            sections.append(growth.table(curves))
            if plot is not None and can_draw():
                self.report.plots += [each.name for each in draw(curves, plot)]
        words = f"ours with {workers} workers"
        for name, load in (
            ("restarts under load", restarts.measure),
            ("mixed load, paced", partial(mixed.measure, thinking=mixed.THINKING)),
            ("mixed load, saturated", mixed.measure),
        ):
            self.attempt(
                name, lambda load=load: self._with_workers(workers, lambda: load(ours, theirs, accounts, words))
            )

    def _with_workers(self, workers: int, load: Callable[[], Section]) -> None:
        self.ours.use_workers(workers)
        try:
            self.report.sections.append(load())
        finally:
            self.ours.use_workers(self.workers)


def _plot(markdown: Path) -> Path:
    """Return the file of the plot, beside the page."""
    return markdown.absolute().with_name(f"{markdown.stem}-growth.svg")


@click.command()
@click.option(
    "--only", default="", help="What has this in its name: a scenario, 'idle', 'growth', 'restarts', 'mixed load'."
)
@click.option("--rounds", type=int, default=None, help="Rounds of each scenario.")
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the tables to this file, and beside it the curves, as NAME-growth.svg and .png.",
)
@click.option(
    "--large", is_flag=True, help=f"Also a mailbox of {LARGE:,} messages, and up to 10,000 connections: an hour."
)
@click.option("--workers", type=int, default=0, help="Worker processes of ours for single operations.")
@click.option(
    "--dovecot-defaults", is_flag=True, help="Dovecot with its default processes: a new one for each session."
)
def main(
    only: str, rounds: int | None, markdown: Path | None, *, large: bool, workers: int, dovecot_defaults: bool
) -> None:
    """Run the scenarios and print the tables."""
    console = Console(width=max(110, Console().width))
    if not available():
        console.print(
            "a Dovecot to compare with is needed: as root, apt-get install dovecot-imapd dovecot-pop3d dovecot-lmtpd"
        )
        sys.exit(2)
    os.umask(0o022)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with room_for_inotify(), tempfile.TemporaryDirectory(prefix="mailserver-bench-") as name:
        sink = relay.Sink()
        sink.start()
        asked = large and only.lower() in OF_MAILBOXES  # a million files take minutes
        settings = "" if dovecot_defaults else TUNED
        ours, theirs, stock, accounts = prepare(Path(name), sink, large=asked, workers=workers, settings=settings)
        bench = Run(ours, theirs, stock, accounts, sink, console, only.lower(), workers)
        try:
            bench.loads(large=large, plot=_plot(markdown) if markdown else None)
            bench.scenarios(rounds)
        finally:
            ours.server.stop()
            stock.server.stop()
            theirs.dovecot.stop()
    report = bench.report
    report.show(console)
    if markdown is not None:
        markdown.write_text(report.markdown(), encoding="utf-8")
    if report.missing:
        sys.exit(1)


main()
