"""Curves as one SVG picture: small panels with logarithmic axes, ours and Dovecot's line in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from benchmarks.growth import Curve

WIDTH, HEIGHT = 320, 220
"""Of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 30, 42
COLUMNS = 3
STYLE = (
    "text{font:11px sans-serif;fill:#333}.title{font-weight:bold}.grid{stroke:#ddd;fill:none}"
    ".end{text-anchor:end}.middle{text-anchor:middle}"
)
OURS, THEIRS = "#1f6fb2", "#c8561c"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around the values, at least one decade."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _panel(curve: Curve, left: int, top: int) -> list[str]:
    across = _decades([at for at, _, _ in curve.points])
    up = _decades([max(cost, 1e-3) for _, *costs in curve.points for cost in costs])

    def x(value: float) -> float:
        share = (math.log10(value) - across[0]) / (across[1] - across[0])
        return round(left + LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = (math.log10(max(value, 1e-3)) - up[0]) / (up[1] - up[0])
        return round(top + HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    low, high = y(10 ** up[0]), y(10 ** up[1])
    first, last = x(10 ** across[0]), x(10 ** across[1])
    parts = [f'<text x="{left + LEFT}" y="{top + 18}" class="title">{escape(curve.title)}</text>']
    for power in range(up[0], up[1] + 1):
        at = y(10**power)
        parts.append(f'<path d="M{first} {at}H{last}" class="grid"/>')
        parts.append(f'<text x="{first - 6}" y="{at + 4}" class="end">{10**power:,g}</text>')
    for power in range(across[0], across[1] + 1):
        at = x(10**power)
        parts.append(f'<path d="M{at} {low}V{high}" class="grid"/>')
        parts.append(f'<text x="{at}" y="{low + 15}" class="middle">{10**power:,g}</text>')
    parts.append(f'<text x="{(first + last) / 2}" y="{low + 31}" class="middle">{escape(curve.quantity)}</text>')
    parts.append(f'<text x="{left + 8}" y="{top + 18}">{escape(curve.unit)}</text>')
    for place, colour in ((1, OURS), (2, THEIRS)):
        points = [(x(point[0]), y(point[place])) for point in curve.points]
        line = " ".join(f"{a},{b}" for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>' for a, b in points]
    return parts


def draw(curves: Sequence[Curve]) -> str:
    """The picture."""
    rows = -(-len(curves) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<circle cx="62" cy="16" r="4" fill="{OURS}"/><text x="72" y="20">mailserver</text>',
        f'<circle cx="162" cy="16" r="4" fill="{THEIRS}"/><text x="172" y="20">Dovecot</text>',
    ]
    for number, curve in enumerate(curves):
        parts += _panel(curve, number % COLUMNS * WIDTH, 30 + number // COLUMNS * HEIGHT)
    return "\n".join([*parts, "</svg>", ""])
