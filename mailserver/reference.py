"""`python -m mailserver.reference` writes docs/commands.md: every command and path with its cost model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mailserver.http.routes import ROUTES
from mailserver.imap import commands as imap
from mailserver.imap.command import describe as describe_imap
from mailserver.pop3 import commands as pop3
from mailserver.pop3.command import describe as describe_pop3
from mailserver.session.cost import Cost
from mailserver.smtp import tables
from mailserver.smtp.command import Table, describe_commands, describe_extensions

_INTRODUCTION: Final = """\
# Commands

Written by `python -m mailserver.reference`; a test compares. `logged in` is authenticated or selected (RFC 3501 3).
(The administrator's command is another: [administration.md](administration.md).) `python -m mailserver.imap`,
`python -m mailserver.pop3` and `python -m mailserver.smtp` print the tables for a terminal.

The cost is the work that one request can cause at most: the quantities that it is linear in, where `constant` is work that
grows with the length of the command alone; and the place where it runs. Work of the reactor's thread holds up all clients of a
process, work of an account's thread those of that account. Limits for a session that takes too much are in
[operations.md](operations.md#what-one-session-may-take). "Before a required TLS" are the commands that submission and LMTP
accept before STARTTLS; any other gets 530. A password (AUTH) and a message's octets (BDAT) are refused there, too.

To add a command or an extension, add a module with its row and the module's name in `FAMILIES`:

| protocol | row | `FAMILIES` |
|---|---|---|
| IMAP | `CommandSpec` (`imap/command.py`) in `COMMANDS` | `imap/commands/__init__.py` |
| POP3 | `CommandSpec` with its `Capability` (`pop3/command.py`) in `COMMANDS` | `pop3/commands/__init__.py` |
| submission, LMTP | `CommandSpec` (`smtp/command.py`) in `COMMANDS` | `smtp/commands/__init__.py` |
| submission, LMTP | `Extension` with its parameters and commands (`smtp/command.py`) in `EXTENSIONS` | `smtp/extensions/__init__.py` |

Then write a transcript in `tests/transcripts/` that names its capability ([transcripts.md](transcripts.md)), its hostile case
in `tests/hostile/test_costs.py` unless its cost is constant, and make this page anew.
"""


Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, heads of the columns, rows."""

_COST: Final = ("cost: linear in", "runs in")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cost(cost: Cost) -> tuple[str, str]:
    return cost.model, cost.runs


def _imap() -> Section:
    rows = [(*row, *_cost(imap.TABLE[row[0]].cost)) for row in describe_imap(imap.TABLE)]
    return "IMAP", ("command", "states", "capabilities", "reference", "code", *_COST), rows


def _pop3() -> Section:
    commands = pop3.TABLE.commands
    rows = [(*row, *_cost(commands[row[0].encode("ascii")].cost)) for row in describe_pop3(pop3.TABLE)]
    return "POP3", ("command", "states", "capabilities", "reference", "code", *_COST), rows


def _smtp(title: str, table: Table) -> list[Section]:
    rows = [(*row, *_cost(table.commands[row[0].encode("ascii")].cost)) for row in describe_commands(table)]
    return [
        (title, ("command", "before a required TLS", "reference", "code", *_COST), rows),
        (
            f"Extensions of {title}",
            ("keyword", "parameters", "commands", "reference", "code"),
            describe_extensions(table),
        ),
    ]


def markdown() -> str:
    """The text of docs/commands.md."""
    sections: list[Section] = [
        _imap(),
        _pop3(),
        *_smtp("submission", tables.SUBMISSION),
        *_smtp("LMTP", tables.LMTP),
        (
            "HTTP",
            ("path", *_COST),
            [(f"`{route.path}`", *_cost(route.cost)) for route in sorted(ROUTES, key=lambda route: route.path)],
        ),
    ]
    lines = [_INTRODUCTION]
    for title, head, rows in sections:
        lines += [f"## {title[0].upper()}{title[1:]}", "", *_table(head, rows), ""]
    return "\n".join(lines)[:-1] + "\n"


def main() -> None:
    """Write the page, in the project's directory."""
    Path("docs/commands.md").write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
