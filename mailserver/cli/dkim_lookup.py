"""`python -m mailserver.cli.dkim_lookup`: look TXT records up for a server that waits for them.

A JSON object on standard input: `names`, and `resolver` (null for the system's). A JSON object on standard output: name ->
texts, null where the resolver does not answer. The server runs it as the service's user, so that no process with the
right to read keys reads what strangers' name servers send.
"""

from __future__ import annotations

import json
import sys

import dns.exception

from mailserver.cli.dns_answers import BadResolver, Resolver


def look_up(names: list[str], server: str | None) -> dict[str, list[str] | None]:
    """Look the names up."""
    found: dict[str, list[str] | None] = {}
    try:
        resolver = Resolver(server)
    except BadResolver:
        return dict.fromkeys(names)
    for name in names:
        try:
            found[name] = resolver.texts(name)
        except dns.exception.DNSException:
            found[name] = None
    return found


def main() -> None:
    """Read the question, write the answer."""
    question = json.load(sys.stdin)
    json.dump(look_up(question["names"], question["resolver"]), sys.stdout)


if __name__ == "__main__":
    main()
