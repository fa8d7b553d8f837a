"""Reads IMAP's parenthesised notation strictly (RFC 3501 9), so that tests see values and not their spelling."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(rb'\(|\)|NIL|[0-9]+|"((?:[^"\\\r\n\0\x80-\xff]|\\["\\])*)"|\{([0-9]+)\}\r\n')


def read(data: bytes) -> Any:
    """Nested lists of bytes, int and None. AssertionError for anything but one well-formed value."""
    stack: list[list[Any]] = [[]]
    at = 0
    spaced = True
    while at < len(data):
        if data[at : at + 1] == b" ":
            assert not spaced, f"two spaces at {at}"
            spaced = True
            at += 1
            continue
        match = _TOKEN.match(data, at)
        assert match, f"not IMAP at {at}: {data[at : at + 40]!r}"
        at = match.end()
        token = match[0]
        if token == b"(":
            stack.append([])
            spaced = True
            continue
        if token == b")":
            value: Any = stack.pop()
            assert stack, "more ) than ("
        else:
            assert spaced, f"no space before {token!r}"
            if token == b"NIL":
                value = None
            elif match[2] is not None:
                value = data[at : at + int(match[2])]
                assert len(value) == int(match[2]), "the literal is shorter than told"
                assert b"\0" not in value
                at += int(match[2])
            elif token[:1] == b'"':
                value = re.sub(rb"\\(.)", rb"\1", match[1])
            else:
                value = int(token)
        stack[-1].append(value)
        spaced = False
    assert len(stack) == 1, "more ( than )"
    assert len(stack[0]) == 1, "not one value"
    return stack[0][0]


def check_body(value: Any, *, extended: bool) -> None:
    """Does it follow the grammar of `body` (RFC 3501 9)? Without recursion."""
    todo = [value]
    while todo:
        body = todo.pop()
        assert isinstance(body, list), body
        if isinstance(body[0], list):
            count = next(number for number, part in enumerate(body) if not isinstance(part, list))
            todo += body[:count]
            rest = body[count:]
            assert isinstance(rest[0], bytes), rest
            check_extension(rest[1:], extended=extended, first=check_parameters)
            continue
        kind, subtype, parameters, identifier, description, encoding, size = body[:7]
        assert isinstance(kind, bytes), body
        assert isinstance(subtype, bytes), body
        check_parameters(parameters)
        assert identifier is None or isinstance(identifier, bytes)
        assert description is None or isinstance(description, bytes)
        assert isinstance(encoding, bytes), body
        assert isinstance(size, int), body
        rest = body[7:]
        if (kind.lower(), subtype.lower()) == (b"message", b"rfc822"):
            check_envelope(rest[0])
            todo.append(rest[1])
            assert isinstance(rest[2], int), body
            rest = rest[3:]
        elif kind.lower() == b"text":
            assert isinstance(rest[0], int), body
            rest = rest[1:]
        check_extension(rest, extended=extended, first=check_nstring)


def check_extension(rest: list[Any], *, extended: bool, first: Any) -> None:
    if not extended:
        assert rest == []
        return
    head, disposition, language, location = rest
    first(head)
    if disposition is not None:
        assert isinstance(disposition[0], bytes), disposition
        check_parameters(disposition[1])
    assert language is None or isinstance(language, bytes) or all(isinstance(tag, bytes) for tag in language)
    check_nstring(location)


def check_nstring(value: Any) -> None:
    assert value is None or isinstance(value, bytes), value


def check_parameters(value: Any) -> None:
    if value is not None:
        assert value, "an empty list is written NIL"
        assert len(value) % 2 == 0
        assert all(isinstance(text, bytes) for text in value)


def check_envelope(value: Any) -> None:
    """Does it follow the grammar of `envelope` (RFC 3501 9)?"""
    assert len(value) == 10, value
    for text in (value[0], value[1], value[8], value[9]):
        check_nstring(text)
    for addresses in value[2:8]:
        if addresses is None:
            continue
        assert addresses
        group = False
        for name, route, mailbox, host in addresses:
            check_nstring(name)
            check_nstring(route)
            if host is None:
                # RFC 3501 7.4.2: a group's beginning has only a mailbox, its end has nothing.
                assert (mailbox is None) is group, "a group that does not end, or ends before it begins"
                group = not group
            else:
                assert mailbox is not None
        assert not group, "a group that does not end"
