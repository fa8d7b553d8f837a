"""`python -m mailserver.reference` writes docs/commands.md: every command and path with its cost model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mailserver.http.routes import ROUTES
from mailserver.imap.command import describe
from mailserver.imap.commands import TABLE
from mailserver.pop3.commands import COMMANDS
from mailserver.session.cost import Cost
from mailserver.smtp.lmtp import LmtpSession
from mailserver.smtp.submission import SubmissionSession

_INTRODUCTION: Final = """\
# Commands

Written by `python -m mailserver.reference`; a test compares. `logged in` is authenticated or selected (RFC 3501 3).
(The administrator's command is another: [administration.md](administration.md).)

The cost is the work that one request can cause at most: what it is linear in, where `constant` is work that grows with
the length of the command alone; and where it runs. Work of the reactor's thread holds up all clients of a process, work of
an account's thread those of that account. What becomes of a session that takes too much is in
[operations.md](operations.md#what-one-session-may-take). In the tables of submission and LMTP "before a required TLS" is what is
looked at there before STARTTLS; everything else hears 530. A password (AUTH) and octets of a message (BDAT) are refused there, too.

To add an IMAP command: a module with a table `COMMANDS`, its name in `FAMILIES` (`imap/commands/__init__.py`), a transcript in
`tests/transcripts/` that names its capability (`transcripts.md`), its hostile case in `tests/hostile/test_costs.py` unless its
cost is constant, and this page made anew.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cost(cost: Cost) -> tuple[str, str]:
    return cost.model, cost.runs


def markdown() -> str:
    """The text of docs/commands.md."""
    sections: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        (
            "IMAP",
            ("command", "states", "capabilities", "reference", "code", "cost: linear in", "runs in"),
            [(*row, *_cost(TABLE[row[0]].cost)) for row in describe(TABLE)],
        ),
        (
            "POP3",
            ("command", "states", "reference", "cost: linear in", "runs in"),
            [
                (
                    name.decode("ascii"),
                    ", ".join(sorted(state.name.lower() for state in spec.states)),
                    spec.rfc,
                    *_cost(spec.cost),
                )
                for name, spec in sorted(COMMANDS.items())
            ],
        ),
        *(
            (
                title,
                ("command", "before a required TLS", "reference", "cost: linear in", "runs in"),
                [
                    (name.decode("ascii"), "yes" if spec.before_tls else "no", spec.rfc, *_cost(spec.cost))
                    for name, spec in sorted(table.items())
                ],
            )
            for title, table in (("Submission", SubmissionSession.table), ("LMTP", LmtpSession.table))
        ),
        (
            "HTTP",
            ("path", "cost: linear in", "runs in"),
            [(f"`{route.path}`", *_cost(route.cost)) for route in sorted(ROUTES, key=lambda route: route.path)],
        ),
    ]
    lines = [_INTRODUCTION]
    for title, head, rows in sections:
        lines += [f"## {title}", "", *_table(head, rows), ""]
    return "\n".join(lines)[:-1] + "\n"


def main() -> None:
    """Write the page, in the project's directory."""
    Path("docs/commands.md").write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
