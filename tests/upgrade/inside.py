"""Part of `tests.upgrade.state` that uses a checkout's own modules, of any version: run as a file, with its PYTHONPATH.

    python tests/upgrade/inside.py ACTION DIRECTORY

It imports nothing of these tests, which another version may not have.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import ipaddress
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import apsw
import click.testing

USER: Final = "anna@example.test"
OTHER: Final = "bert@example.test"
CONFIG: Final = "mailserver.toml"


def digest(whole: str) -> str:
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def module(*names: str) -> Any:
    """The one that this checkout has, of all names that it has had."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError(f"none of {names}")


def named(owner: Any, *names: str) -> Any:
    """The one that it has, of all names that this checkout or another has given it."""
    return next(getattr(owner, name) for name in names if hasattr(owner, name))


def acme_modules() -> tuple[Any, Any]:
    return (
        module("mailserver.tls.acme.acme_state", "mailserver.tls.acme_state"),
        module("mailserver.tls.acme.schedule", "mailserver.tls.acme_plan"),
    )


AUTHORITY: Final = "https://acme.example.net/directory"


def inside_make(directory: Path) -> None:
    """A COPY that was interrupted by a crash; what ACME remembers; a warning of an expiry."""
    interrupt_copy(directory)
    state, plan = acme_modules()
    secret = module("mailserver.types").Secret
    where = directory / "state"
    state.account_key(where, AUTHORITY)
    state.next_account_key(where, AUTHORITY)
    state.save(where, plan.Attempts("mail.example.org", 3, 1_000_000, 4_000_000_000, "the authority does not answer"))
    state.save_windows(
        where, [plan.Window("mail.example.test", "ab" * 32, 1_000, 2_000, 3_000, 4_000, "https://why.example.net/")]
    )
    state.save_order(
        where,
        named(state, "PendingOrder", "Begun")(
            "mail.example.org", AUTHORITY, "p256", AUTHORITY + "/1", secret(b"a key"), b"a request", 1_000_000
        ),
    )
    history = open_history(where)
    newest, second, *_rest = history.of_host("mail.example.org")
    with history.transaction():
        named(history, "record_warning", "warned")("mail.example.org", newest.fingerprint, 14, 1_000_000)
        history.revoke(second.fingerprint)
    history.close()


def inside_change(directory: Path) -> None:
    """The next steps of ACME."""
    state, plan = acme_modules()
    where = directory / "state"
    state.take_next_key(where, AUTHORITY)
    state.next_account_key(where, AUTHORITY)
    state.drop_order(where, "mail.example.org")
    state.save(where, plan.Attempts("mail.example.org", 4, 2_000_000, 4_000_000_001, "it has refused"))
    history = open_history(where)
    (newest, *_rest) = history.of_host("mail.example.org")
    with history.transaction():
        named(history, "record_warning", "warned")("mail.example.org", newest.fingerprint, 7, 2_000_000)
    history.close()


def inside_networks(directory: Path) -> list[Any]:
    """Networks from which users have logged in, as of the time when the file was written."""
    file = directory / "state" / "known-networks"
    known = module("mailserver.auth.throttling.known_networks", "mailserver.auth.known").KnownNetworks(
        wall=lambda: file.stat().st_mtime
    )
    known.load(file.read_bytes())
    network = module("mailserver.auth.throttling.penalties", "mailserver.auth.penalties").network_of(
        ipaddress.ip_address("127.0.0.1")
    )
    return [len(known), hashlib.sha256(known.key).hexdigest(), known.is_known((USER, network))]


COMMANDS: Final = {
    "certificates": ("cert", "history", "--json"),
    "exposures": ("exposures", "list", "--json"),
    "authority": ("ca", "list", "--json"),
    "users": ("user", "list", "--json"),
    "special uses": ("mailbox", "special-use", USER, "--json"),
}


def inside_commands(directory: Path) -> dict[str, Any]:
    """What the administrator's commands tell, in one process."""
    main_command = module("mailserver.cli").main
    seen = {}
    for name, command in COMMANDS.items():
        done = click.testing.CliRunner().invoke(main_command, [*command, "--config", str(directory / CONFIG)])
        assert done.exit_code == 0, (command, done.output)
        seen[name] = json.loads(done.output)
    return seen


def inside_describe(directory: Path) -> dict[str, Any]:
    """What the state directory and the index hold that no client sees, without the server's modules where SQL will do."""
    where = directory / "state"
    return {
        "acme": {name: rows(where / "acme.sqlite", f"SELECT * FROM {name}") for name in ACME_TABLES},
        "certificates": {
            name: rows(where / "certificates.sqlite", f"SELECT * FROM {name}")
            for name in ("activation", "served", "pair", "pinned", "revoked")
        },
        "expiry": rows(where / "certificates.sqlite", "SELECT * FROM warned WHERE host = 'mail.example.org'"),
        "clients": rows(where / "clients.db", "SELECT DISTINCT account, rtrim(protocol, 's') FROM seen"),
        "mailboxes": describe_mailboxes(directory),
    }


ACME_TABLES: Final = ("account", "attempts", "next_account", "orders", "windows")


def rows(path: Path, query: str) -> list[str]:
    """Sorted, with octets as digests."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = [
        [digest(repr(each)) if isinstance(each, bytes) else each for each in row] for row in connection.execute(query)
    ]
    connection.close()
    return sorted(map(repr, found))


def open_history(where: Path) -> Any:
    return module("mailserver.tls.state.history", "mailserver.tls.history").History.open(where, 10, 0)


def open_account(directory: Path, user: str) -> Any:
    render = module("mailserver.message.render")
    store = module("mailserver.store.maildir.account.store", "mailserver.store.maildir.store")
    return store.MaildirStore(directory / "mail", render.summarise, hostname="mail.example.test").account(user)


def describe_mailboxes(directory: Path) -> dict[str, Any]:
    """What the index alone knows: GUIDs, modification sequences and expunged messages."""
    account = open_account(directory, USER)
    seen: dict[str, Any] = {}
    for info in account.mailboxes():
        if info.selectable:
            mailbox = account.mailbox(info.name)
            mailbox.refresh()
            loaded = mailbox.load()
            seen[info.name] = {
                "guid": mailbox.id.hex() if isinstance(mailbox.id, bytes) else str(mailbox.id),
                "modseq": loaded.modseq,
                "keywords": list(loaded.keywords),
                "rows": digest(repr([(row.uid, row.modseq, row.flags, row.size, row.date) for row in loaded.rows])),
            }
    index = Path(account.root) / "mailserver-index.sqlite"
    seen["expunged"] = rows(index, "SELECT name, uid, e.modseq FROM expunged e JOIN mailboxes ON key = mailbox")
    seen["kept"] = rows(index, "SELECT (SELECT count(*) FROM summaries), (SELECT count(*) FROM header_texts)")
    account.close()
    return seen


def interrupt_copy(directory: Path) -> None:
    """End a process in the midst of a COPY; its intent stays."""
    safeio = module("mailserver.store.maildir.disk.safeio", "mailserver.store.maildir.safeio")
    pid = os.fork()
    if pid == 0:
        try:
            account = open_account(directory, OTHER)
            account.create("Copies")
            mailbox = account.mailbox("INBOX")
            mailbox.refresh()
            safeio.hook = lambda name: os._exit(3) if name == "copy.after-link" else None
            mailbox.copy([row.uid for row in mailbox.load().rows], "Copies")
        except BaseException:
            traceback.print_exc()
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def main(arguments: list[str]) -> None:
    match arguments:
        case ["make", directory]:
            inside_make(Path(directory))
        case ["change", directory]:
            inside_change(Path(directory))
        case ["networks", directory]:
            print(json.dumps(inside_networks(Path(directory))))
        case ["commands", directory]:
            print(json.dumps(inside_commands(Path(directory))))
        case ["describe", directory]:
            print(json.dumps(inside_describe(Path(directory))))
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main(sys.argv[1:])
