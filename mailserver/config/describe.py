"""Documents generated from the model: etc/mailserver.toml and docs/configuration.md.

`python -m mailserver.config.describe` in the project's directory writes both; a test compares them with the model.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import tomlkit
from attrs import Attribute

from mailserver.config import kinds
from mailserver.config.kinds import PORTS
from mailserver.config.model import (
    Acme,
    AcmeDns,
    BackendUse,
    Config,
    Domain,
    DomainQuota,
    HiddenCapabilities,
    Listener,
    MtaSts,
    Relay,
    Site,
)
from mailserver.config.schema import keys_of

_INTRODUCTION: Final = """\
Configuration of mailserver, in TOML. A key behind # is optional, and its default is shown.
Check a changed file with `twistd mailserver --config FILE --check`, which reports every problem at once.
Relative paths, also in `file:` and `directory:`, are relative to the directory of this file."""

_TABLES: Final = {
    "server": "The service itself.",
    "mail": "Location of mail, and names of folders.",
    "auth": "Authentication of users.",
    "domain": "A mail domain, its hosts and their certificate. One table for each domain.",
    "domain.site": "Further host names of the domain above with a certificate of their own, for web pages for example. A fault "
    "of one certificate does not affect the others.",
    "domain.mta_sts": "The MTA-STS policy of the domain above (RFC 8461), served at mta-sts.DOMAIN over HTTPS.",
    "domain.quota": "Limits of accounts of the domain above. A user's own, in the users file, come first.",
    "listener": "A port or Unix socket. One table for each; several may have the same protocol.",
    "tls": "TLS settings common to all listeners. They cannot differ between domains.",
    "imap": "IMAP (RFC 3501).",
    "imap.hide": "Capabilities that are hidden from some clients, accounts or listeners, such as a client with a fault in its use of "
    "one. A table for each rule; without conditions it is for all.",
    "pop3": "POP3 (RFC 1939).",
    "submission": "Submission of mail by users (RFC 6409).",
    "submission.relay": "The next hop for mail to other domains. Without this table such mail is refused.",
    "lmtp": "Delivery from a mail transfer agent (RFC 2033).",
    "http": "Listeners of protocol http and https: pages for the setup of clients, metrics, health.",
    "acme": "Certificates from an authority with ACME (RFC 8555), such as Let's Encrypt, for domains and sites with `acme = true`. "
    "Needs the extra mailserver[acme].",
    "acme.dns": "Validation by DNS (dns-01).",
    "queue": "The queue of mail on its way out. No server sends from it yet.",
    "quota": "Limits of what each account may keep (RFC 9208); [domain.quota] and fields of the users file come first.",
    "limits": "Limits of resources, so that one client cannot exhaust them for all.",
    "explain": "Explanations of refused logins, for people whose login does not work.",
    "bans": "Bans of addresses that guess passwords; one that a user has logged in from is never banned. docs/authentication.md "
    "describes them.",
    "ledger": "The record of each account's clients. It has no addresses, passwords or mail; docs/tls.md describes it.",
    "cache": "Caches of each worker, which drop the least recently used entries; `mailserver status` shows their usage.",
}

_SOCKETS_FOR_POSTFIX: Final = (
    "# Logins at Postfix, whose smtpd is in a chroot (docs/authentication.md):",
    "#     [[listener]]",
    '#     protocol = "auth"',
    '#     socket = "/var/spool/postfix/private/mailserver-auth"',
    '#     socket_owner = "postfix"',
    '#     socket_group = "postfix"',
    "# and domains, addresses and senders for Postfix (docs/accounts.md):",
    "#     [[listener]]",
    '#     protocol = "lookup"',
    '#     socket = "/var/spool/postfix/private/mailserver-lookup"',
    '#     socket_owner = "postfix"',
    '#     socket_group = "postfix"',
)
"""Listeners that other servers on the machine use, as comments: most machines have no such user."""

_SET: Final = frozenset({("server", "user"), ("domain", "certificate"), ("domain", "key")})
"""Optional keys that the file sets, as a service started as root, or most domains, need them."""

_MEANINGS: Final = {
    bool: "true or false",
    str: "text",
    Path: "path",
    kinds.Port: "port, 1 to 65535",
    kinds.Count: "whole number, at least 1",
    kinds.Size: "octets, at least 1",
    kinds.Limit: "whole number from 0",
    kinds.SizeLimit: 'octets from 0, or text with a unit: `"10G"`',
    kinds.Seconds: "seconds, above 0",
    kinds.GreetingDelay: "seconds, 0 to 5",
    kinds.FileMode: "three octal digits, as text",
    kinds.HostName: "host name",
    kinds.HostPattern: "host name or *.name",
    kinds.OptionalHostName: "host name or empty",
    kinds.NextHop: "host name or IP address",
    kinds.HttpUrl: "http URL or empty",
    kinds.Address: "IP address",
    kinds.Network: "IP network",
    BackendUse: "text `NAME:ARGUMENT`, or a table",
}


def example_file() -> str:
    """The content of etc/mailserver.toml: a valid configuration with every key."""
    lines = [f"# {line}" for line in _INTRODUCTION.splitlines()]
    for name, table in _tables():
        lines += ["", "", f"# {_TABLES[name]}", *_table_lines(name, table)]
        if table is Listener:
            for protocol in PORTS:
                if protocol != _example(keys_of(Listener)["protocol"]):
                    # The ports of HTTP are often another server's.
                    absent = "# " if protocol in ("http", "https") else ""
                    lines += ["", f"{absent}[[listener]]", f"{absent}protocol = {_toml(protocol)}"]
            lines += ["", *_SOCKETS_FOR_POSTFIX]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The content of docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "Generated from `mailserver/config/model/` by `python -m mailserver.config.describe`; make changes there.",
        "",
        "The configuration is one TOML file. Unknown keys are errors, and all problems are reported at once: `--check` prints",
        "a line for each, with the table, the key, the value, the correction, and the word probably meant. `--show` prints the",
        "effective configuration without secrets. Relative paths, also in `file:` and `directory:`, are relative to the directory of the file.",
    ]
    for name, table in _tables():
        lines += ["", f"## {_header(name, table)}", "", _TABLES[name], ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        hints = get_type_hints(table)
        for key, attribute in keys_of(table).items():
            if _nested(hints[attribute.name]):
                continue
            cells = (f"`{key}`", _meaning(hints[attribute.name]), _default_cell(attribute), _doc_cell(attribute))
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _tables() -> Iterator[tuple[str, type]]:
    """Every table in the order of the file, required ones first."""
    hints = get_type_hints(Config)
    for name, attribute in keys_of(Config).items():
        table = _nested(hints[attribute.name])
        assert table is not None
        yield name, table
        inner_hints = get_type_hints(table)
        for inner, inner_attribute in keys_of(table).items():
            nested = _nested(inner_hints[inner_attribute.name])
            if nested is not None:
                yield f"{name}.{inner}", nested


def _nested(hint: Any) -> type | None:
    found = [part for part in (hint, *get_args(hint)) if attrs.has(part)]
    return found[0] if found else None


def _header(name: str, table: type) -> str:
    return f"[[{name}]]" if table in (Domain, Listener, Site, HiddenCapabilities) else f"[{name}]"


def _table_lines(name: str, table: type) -> Iterator[str]:
    # An optional table is commented out, its required keys with their examples.
    absent = "# " if table in (Relay, Site, MtaSts, DomainQuota, Acme, AcmeDns, HiddenCapabilities) else ""
    yield f"{absent}{_header(name, table)}"
    hints = get_type_hints(table)
    for key, attribute in keys_of(table).items():
        if _nested(hints[attribute.name]):
            continue
        yield f"# {attribute.metadata['doc']}"
        example, default = attribute.metadata["example"], _default(attribute)
        if attribute.default is attrs.NOTHING or (name, key) in _SET:
            yield f"{absent}{key} = {_toml(example)}"
        elif default is None:
            yield f"# {key} = {_toml(example)}  # an example; absent by default"
        elif example is not None:
            yield f"# {key} = {_toml(default)}  # an example: {_toml(example)}"
        else:
            yield f"# {key} = {_toml(default)}"


def _default(attribute: Attribute[Any]) -> Any:
    default: Any = attribute.default
    return default.factory() if hasattr(default, "factory") else default


def _example(attribute: Attribute[Any]) -> Any:
    return attribute.metadata["example"]


def _default_cell(attribute: Attribute[Any]) -> str:
    default = _default(attribute)
    if default is attrs.NOTHING:
        return "required"
    return "absent" if default is None else f"`{_toml(default)}`"


def _doc_cell(attribute: Attribute[Any]) -> str:
    example, old = _example(attribute), attribute.metadata["formerly"]
    sentences = [attribute.metadata["doc"]]
    if example is not None:
        sentences.append(f"Example: `{_toml(example)}`.")
    if old:
        sentences.append(f"Until the next release the old name `{old}` works, too.")
    return " ".join(sentences)


def _meaning(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if hint == kinds.Workers:
        return '`"auto"`, or a whole number from 0'
    if origin is Literal:
        return ", ".join(f"`{_toml(word)}`" for word in parts)
    if origin in (Union, types.UnionType):
        return _meaning(next(part for part in parts if part is not type(None)))
    if origin is tuple:
        return f"array of: {_meaning(parts[0])}"
    if origin is dict:
        return "table of text, or of arrays of text"
    return _MEANINGS[hint]


def _toml(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update({key: _one_or_list(names) for key, names in value.items()})
        return inline.as_string()
    words: str = tomlkit.item(list(value) if isinstance(value, tuple) else value).as_string()
    return words


def _one_or_list(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def main() -> None:
    """Write both files below the working directory."""
    for path, content in ((Path("etc/mailserver.toml"), example_file()), (Path("docs/configuration.md"), reference())):
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
