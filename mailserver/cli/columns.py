"""Tables and quantities for the terminal, aligned with spaces so that other programs can split them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

_STEPS = ("", "k", "M", "G", "T")


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the rows below their head. Cells may come from clients: control characters are escaped."""
    lines = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def octets(number: int) -> str:
    """1536 -> "1.5k"."""
    value, step = float(number), 0
    while value >= 1024 and step < len(_STEPS) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.1f}{_STEPS[step]}" if step and value < 10 else f"{value:.0f}{_STEPS[step]}"


def duration(seconds: float) -> str:
    """90 -> "1m30s", 90000 -> "1d1h"; the two largest units."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number}{unit}")
    return "".join(parts[:2])


def plain(cell: str) -> str:
    """Escape control characters of a cell or a line."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cell) or "-"
