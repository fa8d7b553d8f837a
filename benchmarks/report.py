"""What a run found, on the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import define, field, frozen
from rich.console import Console
from rich.table import Table


@frozen
class Row:
    """One line of the first table: a cost of each side."""

    name: str
    ours: float
    theirs: float
    unit: str
    target: float
    """Most that the ratio may be."""
    spread: float
    """Largest ratio of a round to the smallest; 1 where there was one round only."""

    @property
    def ratio(self) -> float:
        """Ours to Dovecot's."""
        return self.ours / self.theirs if self.theirs else float("inf")


@frozen
class Section:
    """Another table: a title, column heads, and cells as text."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@define
class Report:
    """All of it."""

    rows: list[Row] = field(factory=list)
    sections: list[Section] = field(factory=list)
    plots: list[str] = field(factory=list)
    """File names of plots that were written beside the Markdown."""
    missing: list[str] = field(factory=list)

    def summary(self) -> str:
        """One sentence on all CPU ratios."""
        ratios = [row.ratio for row in self.rows if row.unit == "us" and 0 < row.ratio < float("inf")]
        if not ratios:
            return "no ratio was measured"
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        below, half = (sum(ratio <= most for ratio in ratios) for most in (1.0, 0.5))
        return f"{len(ratios)} ratios of server CPU: geometric mean {mean:.2f}, {below} at most 1.0, {half} at most 0.5"

    def show(self, console: Console) -> None:
        """On the terminal; ratios over their target are marked."""
        table = Table("scenario", "ours", "Dovecot", "ratio", "target", "spread", title="server CPU per operation")
        for row in self.rows:
            over = row.ratio > row.target
            table.add_row(
                row.name,
                f"{row.ours:,.1f} {row.unit}",
                f"{row.theirs:,.1f} {row.unit}",
                f"[{'red' if over else 'green'}]{row.ratio:.2f}{' over' if over else ''}[/]",
                f"{row.target:.2g}",
                f"{row.spread:.1f}",
            )
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
        """The same as a page."""
        heads = ["scenario", "ours", "Dovecot", "ratio", "target", "spread"]
        cells = [
            [
                row.name,
                f"{row.ours:,.1f} {row.unit}",
                f"{row.theirs:,.1f} {row.unit}",
                f"**{row.ratio:.2f}**" if row.ratio > row.target else f"{row.ratio:.2f}",
                f"{row.target:.2g}",
                f"{row.spread:.1f}",
            ]
            for row in self.rows
        ]
        parts = ["## Server CPU per operation", "", *_table(heads, cells), "", self.summary(), ""]
        for section in self.sections:
            parts += [f"## {section.title}", "", *_table(section.heads, section.lines), "", *section.notes, ""]
        parts += [f"![{name}]({name})" for name in self.plots]
        parts += [f"Missing: {name}." for name in self.missing]
        return "\n".join(parts).rstrip("\n") + "\n"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """The first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines)]
