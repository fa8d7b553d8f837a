"""What a benchmark run writes: the table, its summary, and the picture of the curves."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.growth import Curve, table
from benchmarks.mixed import percentile
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


def test_the_summary_compares_stock_transports_where_they_were_measured() -> None:
    rows = [
        Row("a", 100.0, 100.0, "us", 3.0, 1.0, 200.0),
        Row("b", 100.0, 100.0, "us", 3.0, 1.0, 50.0),
        Row("c", 100.0, 100.0, "us", 3.0, 1.0, 150.0),
        Row("d", 100.0, 100.0, "us", 3.0, 1.0),
    ]
    # (2 * 0.5 * 1.5) ** (1/3) = 1.14
    assert Report(rows).summary().endswith("; with stock transports ours takes 1.14 of that, by 3 ratios")


def test_a_run_without_rows_says_so() -> None:
    assert Report().summary() == "no ratio was measured"


def test_markdown_marks_what_is_over_its_target_and_names_what_is_missing() -> None:
    report = Report(
        [Row("slow", 1234.5, 100.0, "us", 3.0, 1.2, 1500.0), Row("fast", 10.0, 100.0, "us", 3.0, 1.0)],
        [Section("More", ["what", "ours"], [["x", "1"]], ["A note."])],
        ["growth.svg"],
        ["NOOP"],
    )
    lines = report.markdown().splitlines()
    assert "| slow | 1,234.5 us | 1,500.0 us | 100.0 us | **12.35** | 3 | 1.2 |" in lines
    assert "| fast | 10.0 us |  | 100.0 us | 0.10 | 3 | 1.0 |" in lines
    assert lines[lines.index("## More") + 2 : lines.index("## More") + 5] == [
        "| what | ours |", "| --- | ---: |", "| x | 1 |",
    ]  # fmt: skip
    assert {"A note.", "![growth.svg](growth.svg)", "Missing: NOOP."} <= set(lines)


CURVES = [
    Curve("NOOP & more", "messages", "us", [(1000, 20.0, 40.0), (10_000, 21.0, 45.0), (100_000, 22.0, 400.0)]),
    Curve("memory", "connections", "MiB", [(10, 0.3, 15.0), (1000, 35.0, 0.0), (10_000, 350.0, None)]),
    Curve("mixed load", "workers", "commands/s", [(1, 700.0, 800.0), (2, 1300.0, 800.0)]),
]


def test_the_picture_is_drawn_twice_with_every_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    svg, png = draw(CURVES, tmp_path / "growth.svg")
    assert (svg.name, png.name) == ("growth.svg", "growth.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    texts = {"".join(each.itertext()).strip() for each in ET.parse(svg).getroot().iter(f"{SVG}text")}
    assert {curve.title for curve in CURVES} | {"messages", "connections", "workers", "MiB", "commands/s"} <= texts
    assert {"1,000", "100,000", "mailserver", "Dovecot"} <= texts


def test_the_same_curves_make_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, _ = draw(CURVES, tmp_path / "a.svg")
    again, _ = draw(CURVES, tmp_path / "b.svg")
    assert first.read_bytes() == again.read_bytes()


def test_the_curves_as_figures() -> None:
    section = table(CURVES)
    assert section.lines[0] == ["NOOP & more (us)", "1,000 messages", "20.00", "40.00"]
    assert section.lines[5] == ["memory (MiB)", "10,000 connections", "350.00", "-"]
    assert len(section.lines) == 8
    assert section.notes[0].startswith("-: it would need more than 60%")
    assert not table(CURVES[:1]).notes


def test_a_percentile_is_of_one_time_too() -> None:
    assert percentile([7.0], 99) == 7.0
    assert percentile([float(number) for number in range(101)], 50) == 50.0
