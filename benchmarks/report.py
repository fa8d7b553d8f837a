"""The report of a run, for the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import define, field, frozen
from rich.console import Console
from rich.table import Table


@frozen
class Row:
    """One line of the first table: the cost of one operation on each server."""

    name: str
    ours: float
    theirs: float
    unit: str
    target: float
    """The highest ratio that is good."""
    spread: float
    """The largest ratio of a round divided by the smallest; 1 with one round only."""
    stock: float | None = None
    """Our cost with `[server] transport = "stock"`; None if that is not measured."""

    @property
    def ratio(self) -> float:
        """Our cost divided by Dovecot's."""
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def stock_cost(self) -> str:
        """The cost with stock transports, as text."""
        return "" if self.stock is None else f"{self.stock:,.1f} {self.unit}"


@frozen
class Section:
    """Another table: a title, column heads, and cells as text."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@define
class Report:
    """Everything that a run measured."""

    rows: list[Row] = field(factory=list)
    sections: list[Section] = field(factory=list)
    plots: list[str] = field(factory=list)
    """File names of plots that were written beside the Markdown."""
    missing: list[str] = field(factory=list)

    def summary(self) -> str:
        """Return one sentence on all CPU ratios."""
        ratios = [row.ratio for row in self.rows if row.unit == "us" and 0 < row.ratio < float("inf")]
        if not ratios:
            return "no ratio was measured"
        mean = _geometric_mean(ratios)
        below, half = (sum(ratio <= most for ratio in ratios) for most in (1.0, 0.5))
        words = (
            f"{len(ratios)} ratios of server CPU: geometric mean {mean:.2f}, {below} at most 1.0, {half} at most 0.5"
        )
        to_stock = [row.stock / row.ours for row in self.rows if row.unit == "us" and row.stock and row.ours]
        if to_stock:
            words += (
                f"; with stock transports ours takes {_geometric_mean(to_stock):.2f} of that, by {len(to_stock)} ratios"
            )
        return words

    def show(self, console: Console) -> None:
        """Print the report; ratios over their target are marked."""
        table = Table(
            "scenario", "ours", "stock", "Dovecot", "ratio", "target", "spread", title="server CPU per operation"
        )
        for row in self.rows:
            over = row.ratio > row.target
            table.add_row(
                row.name,
                f"{row.ours:,.1f} {row.unit}",
                row.stock_cost,
                f"{row.theirs:,.1f} {row.unit}",
                f"[{'red' if over else 'green'}]{row.ratio:.2f}{' over' if over else ''}[/]",
                f"{row.target:.2g}",
                f"{row.spread:.1f}",
            )
        if self.rows:
            console.print(table)
            console.print(self.summary())
        for section in self.sections:
            extra = Table(*section.heads, title=section.title)
            for line in section.lines:
                extra.add_row(*line)
            console.print(extra)
            for note in section.notes:
                console.print(note)
        for name in self.missing:
            console.print(f"[red]missing: {name}[/]")

    def markdown(self) -> str:
        """Return the report as a page."""
        heads = ["scenario", "ours", "stock", "Dovecot", "ratio", "target", "spread"]
        cells = [
            [
                row.name,
                f"{row.ours:,.1f} {row.unit}",
                row.stock_cost,
                f"{row.theirs:,.1f} {row.unit}",
                f"**{row.ratio:.2f}**" if row.ratio > row.target else f"{row.ratio:.2f}",
                f"{row.target:.2g}",
                f"{row.spread:.1f}",
            ]
            for row in self.rows
        ]
        parts = ["## Server CPU per operation", "", *_table(heads, cells), "", self.summary(), ""] if cells else []
        for section in self.sections:
            parts += [f"## {section.title}", "", *_table(section.heads, section.lines), "", *section.notes, ""]
        parts += [f"![{name}]({name})" for name in self.plots]
        parts += [f"Missing: {name}." for name in self.missing]
        return "\n".join(parts).rstrip("\n") + "\n"


def _geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines)]
