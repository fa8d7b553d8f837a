"""What a benchmark run writes: the table, its summary, and the picture of the curves."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from benchmarks.growth import Curve, table
from benchmarks.plot import draw
from benchmarks.report import Report, Row, Section

SVG = "{http://www.w3.org/2000/svg}"


def test_the_summary_is_a_geometric_mean_of_cpu_alone() -> None:
    rows = [
        Row("a", 200.0, 100.0, "us", 3.0, 1.0),
        Row("b", 50.0, 100.0, "us", 3.0, 1.0),
        Row("c", 25.0, 100.0, "us", 1.5, 1.0),
        Row("memory", 1.0, 1000.0, "KiB", 1.5, 1.0),
    ]
    # (2 * 0.5 * 0.25) ** (1/3) = 0.63
    assert Report(rows).summary() == "3 ratios of server CPU: geometric mean 0.63, 2 at most 1.0, 2 at most 0.5"


def test_a_run_without_rows_says_so() -> None:
    assert Report().summary() == "no ratio was measured"


def test_markdown_marks_what_is_over_its_target_and_names_what_is_missing() -> None:
    report = Report(
        [Row("slow", 1234.5, 100.0, "us", 3.0, 1.2), Row("fast", 10.0, 100.0, "us", 3.0, 1.0)],
        [Section("More", ["what", "ours"], [["x", "1"]], ["A note."])],
        ["growth.svg"],
        ["NOOP"],
    )
    lines = report.markdown().splitlines()
    assert "| slow | 1,234.5 us | 100.0 us | **12.35** | 3 | 1.2 |" in lines
    assert "| fast | 10.0 us | 100.0 us | 0.10 | 3 | 1.0 |" in lines
    assert lines[lines.index("## More") + 2 : lines.index("## More") + 5] == [
        "| what | ours |", "| --- | ---: |", "| x | 1 |",
    ]  # fmt: skip
    assert {"A note.", "![growth.svg](growth.svg)", "Missing: NOOP."} <= set(lines)


CURVES = [
    Curve("NOOP & more", "messages", "us", [(1000, 20.0, 40.0), (10_000, 21.0, 45.0), (100_000, 22.0, 400.0)]),
    Curve("memory", "connections", "MiB", [(10, 0.3, 15.0), (1000, 35.0, 0.0)]),
]


def test_the_picture_has_both_lines_of_every_curve_where_they_belong() -> None:
    root = ET.fromstring(draw(CURVES))
    lines = root.findall(f"{SVG}polyline")
    assert len(lines) == 2 * len(CURVES)
    ours, theirs = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in lines[:2]
    )
    assert [point[0] for point in ours] == [point[0] for point in theirs]
    # Equal factors are equal steps on a logarithmic axis; a higher cost is higher up.
    assert abs((ours[1][0] - ours[0][0]) - (ours[2][0] - ours[1][0])) < 0.2
    assert all(mine[1] > other[1] for mine, other in zip(ours, theirs, strict=True))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_the_curves_as_figures() -> None:
    assert table(CURVES).lines[0] == ["NOOP & more (us)", "1,000 messages", "20.00", "40.00"]
    assert len(table(CURVES).lines) == 5
