"""docs/capabilities.md says of each capability whether it is here."""

from __future__ import annotations

from pathlib import Path

from tests.imap.sessions import services

PAGE = Path(__file__).parents[2] / "docs" / "capabilities.md"


def rows() -> dict[str, list[str]]:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("| capability |") :].partition("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0]: row[1:] for row in cells}


def test_the_column_of_this_server_is_what_it_lists() -> None:
    here = {name for name, row in rows().items() if row[0] in ("Y", "c") and not name.startswith("**")}
    tokens = {each.token for each in services().capabilities} - {"AUTH", "LITERAL"}
    resources = {token for token in tokens if token.startswith("QUOTA=RES-")}
    assert resources
    assert here == tokens - resources | {"LITERAL+", "LITERAL-", "QUOTA=RES-*"}


def test_the_last_row_counts() -> None:
    table = rows()
    counts = table.pop("**in all**")
    assert counts == [str(sum(row[column] != "–" for row in table.values())) for column in range(len(counts))]
