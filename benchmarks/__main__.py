"""`make bench`: Dovecot and ours, every scenario, interleaved; tables, and an exit status that says if one is missing.

python -m benchmarks [--only WORD] [--rounds N] [--markdown FILE] [--plain] [--hostile]
    [--no-loads] [--large] [--workers N] [--no-stock] [--dovecot-defaults]

Costs of single operations are those of ours with two workers, by its fast transports and by stock ones; loads are those
of as many workers as there are processors. One row is measured within seconds, as only the mail that it needs is made:

python -m benchmarks --no-stock --rounds 2 --only "STORE, one by one"
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
from attrs import define, field
from rich.console import Console
from rich.markup import escape

from benchmarks import foreign, growth, idle, latency, login_load, mixed, relay, restarts, text_index
from benchmarks.accounts import LARGE, SIZES
from benchmarks.directory_server import DirectoryServers
from benchmarks.hostile import HOSTILE, ONE_OF
from benchmarks.mail import PEOPLE, PLAIN
from benchmarks.measurement import compare, run
from benchmarks.plot import can_draw, draw
from benchmarks.preparation import Servers, prepare
from benchmarks.report import Report, Row, Section
from benchmarks.scenarios import SCENARIOS, logins
from benchmarks.scenarios.scenario import Scenario
from benchmarks.servers import room_for_inotify
from benchmarks.settings import TUNED
from mailserver.tap import usable_processors
from tests.dovecot import available

LARGE_IDLE = 5000


@define
class Run:
    """One run over all servers."""

    servers: Servers
    console: Console
    only: str
    workers: int
    with_directory: DirectoryServers
    report: Report = field(factory=Report)

    def attempt(self, name: str, work: Callable[[], None], needs: Sequence[str]) -> None:
        """Measure if `--only` asks for it; a failure is noted in the report, and the run continues.

        `needs` are the accounts whose mail must be there.
        """
        if self.only not in name.lower():
            return
        self.servers.mailboxes.make(needs)
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
        sides, accounts = self.servers.sides, self.servers.accounts
        for scenario in SCENARIOS:
            self.attempt(
                scenario.name,
                lambda scenario=scenario: self.add(run(scenario, sides, accounts, rounds)),
                scenario.needs,
            )
        submission = partial(relay.measure, sides, accounts, self.servers.sink)
        self.attempt("submission with relay", lambda: self.add(submission()), ())
        ours, sections = self.servers.ours, self.report.sections
        self.attempt(
            "logins and look-ups with a directory",
            lambda: sections.extend(logins.measure(self.with_directory, rounds)),
            (),
        )
        self.attempt("text index of 10k", lambda: sections.append(text_index.measure(ours, accounts)), ("k10", "warm"))
        for idling, name in ((False, "NOOP"), (True, "IDLE")):
            self.attempt(
                f"foreign delivery, until {name} reports it",
                lambda idling=idling: self.add(foreign.measure(sides, accounts, idle=idling)),
                ("foreign",),
            )
        self.attempt(
            "NOOP p99 while 100k are opened", lambda: self.add(latency.measure(sides, accounts)), ("k1", "k100")
        )

    def hostile(self, rounds: int | None) -> None:
        """Measure every scenario on mail like people's and on mail with hostile messages in it."""
        sides, accounts = self.servers.sides[:2], self.servers.accounts
        others, mailboxes = self.servers.with_mail(HOSTILE)
        pairs: list[tuple[Row, Row]] = []

        def both(scenario: Scenario) -> None:
            mailboxes.make(scenario.needs)
            pair = run(scenario, sides, accounts, rounds), run(scenario, sides, others, rounds)
            pairs.append(pair)
            ratios, growth = [row.ratio for row in pair], [pair[1].ours / pair[0].ours, pair[1].theirs / pair[0].theirs]
            self.console.print(
                f"{scenario.name}: {ratios[0]:.2f}, hostile {ratios[1]:.2f}; grows {growth[0]:.2f}, Dovecot {growth[1]:.2f}"
            )

        for scenario in SCENARIOS:
            self.attempt(scenario.name, partial(both, scenario), scenario.needs)
        self.report.sections.append(compare(pairs, ONE_OF))

    def loads(self, *, large: bool, plot: Path | None) -> None:
        """Measure idle connections, growth, restarts, and last the mixed loads, which change mailboxes."""
        ours, theirs, accounts = self.servers.ours, self.servers.theirs, self.servers.accounts
        sections = self.report.sections
        curves: list[growth.Curve] = []
        sized = ["k1", "k10", "k100", *(["large"] if large else ())]

        def idle_connections(count: int) -> None:
            rows, section = idle.measure(ours, theirs, accounts, count)
            for row in rows:
                self.add(row)
            sections.append(section)

        def of_mailboxes() -> None:
            sizes = {getattr(accounts, name): SIZES[name] for name in sized}
            curves.extend(growth.of_mailboxes(ours, theirs, accounts, sizes))

        def of_connections() -> None:
            counts = growth.CONNECTIONS + (growth.LARGE_CONNECTIONS if large else ())
            curves.extend(growth.of_connections(ours, theirs, accounts, counts))

        self.attempt(
            "logins, 10,000 a minute",
            lambda: sections.append(login_load.measure(self.with_directory, accounts.mail)),
            (),
        )
        for count in (idle.CONNECTIONS, LARGE_IDLE) if large else (idle.CONNECTIONS,):
            self.attempt(f"idle connections, {count}", partial(idle_connections, count), ("people", "warm"))
        self.attempt("growth with mailboxes", of_mailboxes, sized)
        self.attempt("growth with connections", of_connections, ("k1", "people"))
        workers = usable_processors()
        self.attempt(
            "growth with workers",
            lambda: curves.extend(growth.of_workers(ours, theirs, accounts, workers)),
            ("people", "warm"),
        )
        if curves:
            sections.append(growth.table(curves))
            if plot is not None and can_draw():
                self.report.plots += [each.name for each in draw(curves, plot)]
        words = f"ours with {workers} workers"
        paces = [mixed.Pace(thinking, tls) for thinking in (mixed.THINKING, 0.0) for tls in (False, True)]
        for name, load in (
            ("restarts under load", restarts.measure),
            *((pace.name, partial(mixed.measure, pace=pace)) for pace in paces),
        ):
            self.attempt(
                name,
                lambda load=load: self._with_workers(workers, lambda: load(ours, theirs, accounts, words)),
                ("people", "warm"),
            )

    def _with_workers(self, workers: int, load: Callable[[], tuple[Sequence[Row], Section]]) -> None:
        ours = self.servers.ours
        ours.use_workers(workers)
        try:
            rows, section = load()
            for row in rows:
                self.add(row)
            self.report.sections.append(section)
        finally:
            ours.use_workers(self.workers)


def _plot(markdown: Path) -> Path:
    """Return the file of the plot, beside the page."""
    return markdown.absolute().with_name(f"{markdown.stem}-growth.svg")


@click.command()
@click.option(
    "--only",
    default="",
    help="What has this in its name: a scenario, 'idle', 'growth', 'restarts', 'mixed load'."
    " Only the mail that it needs is made, so that one row takes seconds.",
)
@click.option("--rounds", type=int, default=None, help="Rounds of each scenario.")
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the tables to this file, and beside it the curves, as NAME-growth.svg and .png.",
)
@click.option("--no-loads", is_flag=True, help="Single operations alone.")
@click.option("--plain", is_flag=True, help="Small messages of plain text instead of ones like people's.")
@click.option(
    "--hostile",
    is_flag=True,
    help=f"Single operations alone, on mail like people's and on mail of which one of {ONE_OF} messages is hostile.",
)
@click.option(
    "--large", is_flag=True, help=f"Also a mailbox of {LARGE:,} messages, and up to 10,000 connections: an hour."
)
@click.option(
    "--workers",
    type=int,
    default=2,
    show_default=True,
    help="Worker processes of ours for single operations; 0 for one process that does everything.",
)
@click.option(
    "--no-stock", is_flag=True, help="Without the server with stock transports, which takes a third less time."
)
@click.option(
    "--dovecot-defaults", is_flag=True, help="Dovecot with its default processes: a new one for each session."
)
def main(
    only: str,
    rounds: int | None,
    markdown: Path | None,
    *,
    no_loads: bool,
    plain: bool,
    hostile: bool,
    large: bool,
    workers: int,
    no_stock: bool,
    dovecot_defaults: bool,
) -> None:
    """Run the scenarios and print the tables."""
    console = Console(width=max(110, Console().width))
    if not available():
        console.print(
            "a Dovecot to compare with is needed: as root, apt-get install dovecot-imapd dovecot-pop3d dovecot-lmtpd"
        )
        sys.exit(2)
    os.umask(0o022)
    os.environ["TZ"] = "UTC"  # of all servers: searches by date have one answer then
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with room_for_inotify(), tempfile.TemporaryDirectory(prefix="mailserver-bench-") as name:
        servers = prepare(
            Path(name),
            PLAIN if plain else PEOPLE,
            workers=workers,
            settings="" if dovecot_defaults else TUNED,
            with_stock=not (no_stock or hostile),
        )
        with_directory = DirectoryServers(Path(name), servers.sink, workers or usable_processors())
        bench = Run(servers, console, only.lower(), workers, with_directory)
        try:
            if hostile:
                bench.hostile(rounds)
            else:
                if not no_loads:
                    bench.loads(large=large, plot=_plot(markdown) if markdown else None)
                bench.scenarios(rounds)
        finally:
            with_directory.stop()
            servers.stop()
    bench.report.show(console)
    if markdown is not None:
        markdown.write_text(bench.report.markdown(), encoding="utf-8")
    if bench.report.missing:
        sys.exit(1)


main()
