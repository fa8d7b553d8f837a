"""Curves as one picture, PNG and SVG: panels with logarithmic axes, ours and Dovecot's line in each.

Needs matplotlib, the extra `bench`; it is imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.growth import Curve

WIDTH, HEIGHT = 3.6, 2.7
"""Of a panel, in inches."""
COLUMNS = 3
OURS, THEIRS = "#1f6fb2", "#c8561c"
SMALLEST = 1e-3
"""Where a cost of nothing stands: a logarithmic axis has no 0."""


def can_draw() -> bool:
    """Is the library there?"""
    return find_spec("matplotlib") is not None


def draw(curves: Sequence[Curve], path: Path) -> list[Path]:
    """Write `path` with the endings .svg and .png; what was written."""
    import matplotlib as mpl  # noqa: PLC0415 - only for this

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = -(-len(curves) // COLUMNS)
    # The same curves make the same file.
    with mpl.rc_context({"svg.hashsalt": "growth", "font.size": 8, "svg.fonttype": "none"}):
        figure, panels = plt.subplots(
            rows, COLUMNS, figsize=(COLUMNS * WIDTH, rows * HEIGHT), squeeze=False, layout="constrained"
        )
        for panel, curve in zip(panels.flat, curves, strict=False):
            _draw_panel(panel, curve)
        for panel in panels.flat[len(curves) :]:
            panel.set_axis_off()
        written = []
        for ending, metadata in ((".svg", {"Date": None}), (".png", {})):
            target = path.with_suffix(ending)
            figure.savefig(target, metadata=metadata, dpi=110)
            written.append(target)
        plt.close(figure)
    return written


def _draw_panel(panel: Any, curve: Curve) -> None:
    """One curve's two lines."""
    from matplotlib import ticker  # noqa: PLC0415

    lines = (("mailserver", OURS, 1, "o"), ("Dovecot", THEIRS, 2, "s"))
    for name, colour, place, marker in lines:
        points = [(point[0], max(float(point[place]), SMALLEST)) for point in curve.points if point[place] is not None]
        panel.plot(*zip(*points, strict=True), marker=marker, markersize=4, color=colour, label=name)
    panel.set_xscale("log")
    panel.set_yscale("log")
    for axis, steps in ((panel.xaxis, (1.0,)), (panel.yaxis, (1.0, 2.0, 5.0))):
        axis.set_major_locator(ticker.LogLocator(subs=steps))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _at: f"{value:,.10g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    costs = [max(float(cost), SMALLEST) for _at, *both in curve.points for cost in both if cost is not None]
    # At least a decade, or noise would look like growth.
    middle = (min(costs) * max(costs)) ** 0.5
    panel.set_ylim(min(min(costs) / 1.5, middle / 10**0.5), max(max(costs) * 1.5, middle * 10**0.5))
    panel.set_title(curve.title, fontsize=9)
    panel.set_xlabel(curve.quantity)
    panel.set_ylabel(curve.unit)
    if curve.points[-1][0] < 10 * curve.points[0][0]:
        panel.set_xticks([at for at, *_ in curve.points], [f"{at:,}" for at, *_ in curve.points])
        panel.minorticks_off()
    panel.grid(visible=True, color="#dddddd", linewidth=0.6)
    panel.legend(fontsize=7)
