"""Responses and patterns as trees of values, and when one matches the other (docs/transcripts.md)."""

from __future__ import annotations

import re

STATUSES = ("ok", "no", "bad", "bye", "preauth")

_TOKEN = re.compile(
    rb"""(?P<space>[ ])
    |(?P<open>\()|(?P<close>\))
    |"(?P<quoted>(?:[^"\\]|\\.)*)"
    |~?\{(?P<literal>[0-9]+)\+?\}\r\n
    |(?P<atom>\\?[^\s()"\[\]{}]*(?:\[[^\]]*\][^\s()"\[\]]*)?[^\s()"]*)""",
    re.VERBOSE,
)


class Broken(Exception):
    """A response that does not follow the grammar, or a variable without a value."""


class Bracketed(list):
    """A response code."""


def parse(data: bytes) -> list:
    """A response (without `* `) or a pattern. Atoms are str, strings bytes, lists list, a response code Bracketed."""
    words = data.split(b" ", 2)
    if words[0].decode("latin-1").lower() in STATUSES:
        code = re.match(rb"\S+ \[(.*?)\]", data, re.DOTALL)
        status = [words[0].decode("latin-1")]
        return [*status, Bracketed(_values(code[1]))] if code else status
    return _values(data)


def _values(data: bytes) -> list:
    stack: list[list] = [[]]
    at = 0
    while at < len(data):
        match = _TOKEN.match(data, at)
        if match is None or match.end() == at:
            raise Broken(f"at {data[at : at + 20]!r} of {data!r}")
        at = match.end()
        if match["open"]:
            stack.append([])
        elif match["close"]:
            if len(stack) == 1:
                raise Broken(f"a closing parenthesis too many in {data!r}")
            done = stack.pop()
            stack[-1].append(done)
        elif match["quoted"] is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", match["quoted"]))
        elif match["literal"]:
            size = int(match["literal"])
            if at + size > len(data):
                raise Broken(f"a literal is cut off in {data!r}")
            stack[-1].append(data[at : at + size])
            at += size
        elif match["atom"]:
            stack[-1].append(match["atom"].decode("latin-1"))
    if len(stack) != 1:
        raise Broken(f"a parenthesis is not closed in {data!r}")
    return stack[0]


Bindings = dict[str, object]


def match(pattern: list, response: list, bound: Bindings) -> Bindings | None:
    """The bindings with which the pattern matches, None if it does not."""
    if pattern and isinstance(pattern[0], str) and pattern[0].lower() in STATUSES and len(pattern) == 1:
        response = response[:1]
    kind = [value.lower() if isinstance(value, str) else "" for value in response]
    if (
        len(response) == 3
        and len(pattern) == 3
        and kind[0 if kind[0] == "status" else 1] in ("fetch", "uidfetch", "status")
    ):
        head = _sequence(pattern[:2], response[:2], bound)
        if isinstance(pattern[2], list) and isinstance(response[2], list):
            return None if head is None else _pairs(pattern[2], response[2], head)
    flags_at = 1 if kind[:1] in (["flags"], ["list"], ["lsub"]) else None
    return _sequence(pattern, response, bound, flags_at)


def _sequence(pattern: list, response: list, bound: Bindings, flags_at: int | None = None) -> Bindings | None:
    if pattern and pattern[-1] == "...":
        pattern, response = pattern[:-1], response[: len(pattern) - 1]
    if len(pattern) != len(response):
        return None
    before = ""
    for at, (wanted, value) in enumerate(zip(pattern, response, strict=True)):
        as_set = at == flags_at or before in ("flags", "permanentflags")
        found = _value(wanted, value, bound, as_set=as_set)
        if found is None:
            return None
        bound = found
        before = value.lower() if isinstance(value, str) else ""
    return bound


def _pairs(pattern: list, response: list, bound: Bindings) -> Bindings | None:
    if len(response) % 2 or len(pattern) % 2:
        return None
    values = {str(key).lower(): value for key, value in zip(response[::2], response[1::2], strict=True)}
    if len(values) * 2 != len(response):
        return None
    for key, wanted in zip(pattern[::2], pattern[1::2], strict=True):
        if str(key).lower() not in values:
            return None
        found = _value(wanted, values[str(key).lower()], bound, as_set=str(key).lower() == "flags")
        if found is None:
            return None
        bound = found
    return bound


def _value(wanted: object, value: object, bound: Bindings, *, as_set: bool) -> Bindings | None:
    if isinstance(wanted, str) and re.fullmatch(r"\$(?:[a-z][a-z0-9]*)?", wanted):
        name = wanted[1:]
        if not name:
            return bound
        if name in bound:
            return bound if _same(bound[name], value) else None
        return {**bound, name: value}
    if isinstance(wanted, str) and re.fullmatch(
        r"(?:[0-9]+|\$[a-z][a-z0-9]*)(?:[:,](?:[0-9]+|\$[a-z][a-z0-9]*))+", wanted
    ):
        # A set of numbers with bound values in it.
        wanted = substituted(wanted.encode("ascii"), bound).decode("ascii")
    if isinstance(wanted, list):
        if not isinstance(value, list) or isinstance(wanted, Bracketed) != isinstance(value, Bracketed):
            return None
        if as_set:
            return bound if _same_flags(wanted, value) else None
        return _sequence(wanted, value, bound)
    if isinstance(value, list):
        return None
    if isinstance(wanted, bytes):
        return bound if wanted == (value if isinstance(value, bytes) else str(value).encode("latin-1")) else None
    return bound if _same(wanted, value) else None


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) or isinstance(other, list):
        return one == other
    return _text(one) == _text(other)


def _text(value: object) -> bytes:
    return (value if isinstance(value, bytes) else str(value).encode("latin-1")).lower()


def _same_flags(wanted: list, value: list) -> bool:
    names, flags = {str(name).lower() for name in wanted}, {str(name).lower() for name in value}
    if len(flags) != len(value):
        return False
    if "\\recent" not in names:
        flags.discard("\\recent")
    if "..." in names:
        return names - {"..."} <= flags
    return names == flags


def match_all(
    patterns: list[list],
    responses: list[list],
    bound: Bindings,
) -> Bindings | None:
    """Bindings with which each pattern has a response of its own."""
    if not patterns:
        return bound
    for at, response in enumerate(responses):
        found = match(patterns[0], response, bound)
        if found is not None:
            rest = match_all(patterns[1:], responses[:at] + responses[at + 1 :], found)
            if rest is not None:
                return rest
    return None


def split_responses(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole responses with their literals, without the final CRLF, and the octets that are left."""
    found = []
    start = at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        literal = re.search(rb"\{([0-9]+)\}\Z", data[start:end])
        if literal:
            at = end + 2 + int(literal[1])
            if at > len(data):
                break
            continue
        found.append(data[start:end])
        start = at = end + 2
    return found, data[start:]


def match_lines(patterns: list[bytes], lines: list[bytes], bound: Bindings) -> Bindings | None:
    """Bindings with which each pattern, of words, has a line of its own."""
    if not patterns:
        return bound
    words = patterns[0].decode("latin-1").split(" ")
    for at, line in enumerate(lines):
        found = _sequence(words, line.decode("latin-1").split(" "), bound)
        if found is not None:
            rest = match_lines(patterns[1:], lines[:at] + lines[at + 1 :], found)
            if rest is not None:
                return rest
    return None


def substituted(data: bytes, bound: Bindings) -> bytes:
    """The octets with the values of `$name` in them. Raises: Broken for one that is not bound."""

    def value(found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        if name not in bound:
            raise Broken(f"${name} is not bound")
        known = bound[name]
        return known if isinstance(known, bytes) else str(known).encode("latin-1")

    return re.sub(rb"\$([a-z][a-z0-9]*)", value, data)
