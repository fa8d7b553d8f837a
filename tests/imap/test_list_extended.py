"""The extended LIST (RFC 5258) against a naive reading of its rules, over random trees; and its STATUS (RFC 5819)."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import StoreUnavailable
from mailserver.imap.commands import list as list_commands
from tests.fakes import Client
from tests.imap.sessions import logged_in, services
from tests.imap.wire.test_pattern import meant

LEVELS = ("a", "b", "ab")
NAMES = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=3).map("/".join)
PATTERNS = st.lists(st.text("ab/*%", min_size=1, max_size=4), min_size=1, max_size=3)
LINE = re.compile(rb'\* LIST \((.*?)\) "/" (\S+?)( .*)?$')
USES = {"Sent": "\\Sent", "Trash": "\\Trash"}
"""The special mailboxes that each account has."""


def parents(name: str) -> set[str]:
    levels = name.split("/")
    return {"/".join(levels[:count]) for count in range(1, len(levels))}


def below(name: str, names: set[str]) -> set[str]:
    return {other for other in names if name in parents(other)}


def expected(
    existing: set[str], subscribed: set[str], selection: set[str], patterns: list[str], returned: set[str]
) -> dict[str, tuple[set[str], bool]]:
    """Name -> attributes and whether CHILDINFO is there, by the rules of RFC 5258 3 one by one."""
    levels = existing | {level for name in existing for level in parents(name)}

    def matches(name: str) -> bool:
        return any(meant(pattern, name) for pattern in patterns)

    def meets(name: str) -> bool:
        if "SUBSCRIBED" in selection and name not in subscribed:
            return False
        if "SPECIAL-USE" in selection:
            return name in existing and name in USES
        return "SUBSCRIBED" in selection or name in levels

    every = levels | subscribed | {level for name in subscribed for level in parents(name)}
    found = {}
    for name in filter(matches, every):
        children = {child for child in below(name, every) if meets(child)}
        recursive = "RECURSIVEMATCH" in selection
        if not meets(name) and not (recursive and any(not matches(child) for child in children)):
            continue
        attributes = set() if name in existing else {"\\NonExistent"}
        if name in subscribed and "SUBSCRIBED" in selection | returned:
            attributes.add("\\Subscribed")
        attributes.add("\\HasChildren" if below(name, existing) else "\\HasNoChildren")
        if name in existing and name in USES:
            attributes.add(USES[name])
        found[name] = attributes, recursive and bool(children)
    return found


def ask(client: Client, command: str) -> bytes:
    answer: bytes = client.ask(b"x " + command.encode() + b"\r\n")
    assert b"x OK" in answer, (command, answer)
    return answer


def listed(client: Client, command: str) -> dict[str, tuple[set[str], bool]]:
    found: dict[str, tuple[set[str], bool]] = {}
    for line in ask(client, command).split(b"\r\n")[:-2]:
        match = LINE.fullmatch(line)
        assert match, line
        name = match[2].strip(b'"').decode()
        assert name not in found, "a name is listed twice"
        assert match[3] in (None, b' ("CHILDINFO" ("SUBSCRIBED"))')
        found[name] = set(match[1].decode().split()), match[3] is not None
    return found


@given(
    st.sets(NAMES, max_size=6),
    st.sets(NAMES, max_size=5),
    st.sets(NAMES, max_size=2),
    st.sampled_from(
        [
            (),
            ("REMOTE",),
            ("SUBSCRIBED",),
            ("SPECIAL-USE",),
            ("SUBSCRIBED", "SPECIAL-USE"),
            ("SUBSCRIBED", "RECURSIVEMATCH"),
            ("RECURSIVEMATCH", "SPECIAL-USE", "SUBSCRIBED"),
        ]
    ),
    PATTERNS,
    st.sets(st.sampled_from(["SUBSCRIBED", "CHILDREN", "SPECIAL-USE"])),
)
def test_selection_and_return_options(
    made: set[str], subscribed: set[str], deleted: set[str], selection: tuple[str, ...], patterns: list[str],
    returned: set[str],
) -> None:  # fmt: skip
    client = logged_in(services())
    account = client.session.account.account
    for name in sorted(made | subscribed):
        if name not in {info.name for info in account.mailboxes() if info.selectable}:
            account.create(name)
    for name in subscribed:
        account.set_subscribed(name, subscribed=True)
    existing = {info.name for info in account.mailboxes() if info.selectable}
    for name in sorted(deleted & existing):
        account.delete(name)
    existing -= deleted
    options = " ".join(sorted(returned))
    command = f'LIST ({" ".join(selection)}) "" ({" ".join(patterns)}) RETURN ({options})'
    assert listed(client, command) == expected(existing, subscribed, set(selection), patterns, returned), command


def test_a_name_that_two_patterns_match_is_listed_once() -> None:
    client = logged_in(services())
    assert list(listed(client, 'LIST "" (S% Sent *ent)')) == ["Sent"]
    assert len(listed(client, 'LIST "" (* INBOX inbox %)')) == 3


def test_the_status_of_a_mailbox_that_has_gone_since_is_left_out(monkeypatch) -> None:
    client = logged_in(services())
    live = client.session.account
    before = live.account.mailbox_list()
    live.account.delete("Sent")

    async def as_before():
        return before

    monkeypatch.setattr(live, "mailbox_list", as_before)
    answer = ask(client, 'LIST "" * RETURN (STATUS (MESSAGES))')
    assert b'* LIST (\\Noselect \\HasNoChildren \\Sent) "/" "Sent"\r\n* LIST' in answer
    assert answer.count(b"* STATUS") == 2


def test_the_status_of_a_mailbox_that_cannot_be_read_is_left_out(monkeypatch) -> None:
    client = logged_in(services())
    account = client.session.account.account
    status = account.status

    def refuse(name):
        if name == "Sent":
            raise StoreUnavailable("the disk fails")
        return status(name)

    monkeypatch.setattr(account, "status", refuse)
    answer = ask(client, 'LIST "" * RETURN (STATUS (MESSAGES))')
    assert b'* LIST (\\HasNoChildren \\Sent) "/" "Sent"\r\n* LIST' in answer
    assert answer.count(b"* STATUS") == 2


def test_each_status_follows_its_line_across_parts(monkeypatch) -> None:
    monkeypatch.setattr(list_commands, "_STATUSES_AT_ONCE", 2)
    client = logged_in(services())
    for number in range(5):
        ask(client, f"CREATE m{number}")
    answer = ask(client, 'LIST "" m% RETURN (STATUS (MESSAGES))').split(b"\r\n")
    assert answer[:-2] == [
        line
        for number in range(5)
        for line in (b'* LIST (\\HasNoChildren) "/" "m%d"' % number, b'* STATUS "m%d" (MESSAGES 0)' % number)
    ]
