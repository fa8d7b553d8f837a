"""The accounts of a demonstration, in a directory or a users file. What is there already stays as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tomlkit

from mailserver.auth.app_passwords import generate, probe_of
from mailserver.auth.backends.directory_lines import new_account
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.scram_fields import make_fields, replace_fields
from mailserver.cli.account_stores import AccountStore, DirectoryStore, author
from mailserver.cli.app_passwords import scram_keys
from mailserver.cli.users_file import UsersFile
from mailserver.directory import applying, credentials, plan, reading
from mailserver.directory.credentials import AppPassword
from mailserver.directory.document import Document, User
from mailserver.directory.document_parse import Parsed
from mailserver.directory.model import StoredAddress
from mailserver.directory.plan import Surroundings
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.sasl.scram_keys import LEAST_ROUNDS
from mailserver.system.atomic_file import replace_file


def store_of(configuration: Path, users: Path, directory: Path, *, users_file: bool) -> AccountStore:
    """Where the accounts are: as the configuration says, else where they were begun, else as `users_file` says."""
    if configuration.exists():
        document = tomlkit.parse(configuration.read_text("utf-8")).unwrap()
        backends = document.get("auth", {}).get("backends", [])
        # A back end with settings of its own is a table.
        names = [each.get("use") if isinstance(each, dict) else each for each in backends]
        users_file = f"directory:{directory}" not in names
    elif directory.exists() or users.exists():
        users_file = not directory.exists()
    return UsersFile(users) if users_file else DirectoryStore(directory)


def make_users(store: AccountStore, accounts: Mapping[str, str], addresses: Sequence[StoredAddress]) -> bool:
    """Add the accounts (name -> password) that are missing; a new directory gets the addresses in the same transaction.

    Return whether a directory is new. Raises: OSError, click.ClickException, DirectoryUnavailable.
    """
    is_new = isinstance(store, DirectoryStore) and not store.path.exists()
    if isinstance(store, DirectoryStore):
        store.path.parent.mkdir(mode=0o700, exist_ok=True)
        if is_new:
            SQLiteDatabase.create(store.path).close()
    there = {entry.name for entry in store.entries()} if store.path.exists() else set()
    missing = [name for name in accounts if name not in there]
    if not missing:
        return is_new
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda name: _line(name, accounts[name].encode("utf-8")), missing))
    if isinstance(store, DirectoryStore):
        _add_to_directory(store, lines, addresses)
    else:
        text = store.path.read_text("utf-8") if there else ""
        replace_file(store.path, (text + "".join(f"{line}\n" for line in lines)).encode("utf-8"))
    return is_new


def make_app_password(store: AccountStore, user: str) -> str:
    """Give the user an app password for IMAP and submission. Return it. Raises: click.ClickException."""
    assert isinstance(store, DirectoryStore)
    password = generate()
    probe = probe_of(password.encode("ascii"))
    assert probe is not None
    with store.opened() as database:
        shared = credentials.shared_parameters(database, user)
        scram = scram_keys(password, ("SHA-256",), shared)
        protocols = frozenset({"imap", "submission"})
        new = AppPassword(credentials.new_id(), user, "phone", protocols, scram=scram)
        parameters = {hash_name: keys.parameters for hash_name, keys in scram.items()}
        credentials.add_app_password(database, author(), new, probe, parameters)
    return password


def _line(name: str, password: bytes) -> str:
    """A line of a users file with a cheap hash, as the demonstration's passwords cannot be guessed."""
    stored = schemes.make(password, cost=schemes.LIGHT)
    extra = replace_fields("", make_fields(stored, password, ("SHA-256",), rounds=LEAST_ROUNDS))
    return f"{name}:{stored}::::::{extra}"


def _add_to_directory(store: DirectoryStore, lines: Iterable[str], addresses: Sequence[StoredAddress]) -> None:
    new = [new_account(line)[0] for line in lines]
    with store.opened() as database:
        before = applying.load(database)
        wanted = Document(
            users={each.name: User(each.name, each.password) for each in new},
            # An address that was removed since does not come back.
            addresses={} if before.serial else {each.name: each for each in addresses},
        )
        made = plan.make(before, Parsed(wanted, (), {}), Surroundings(any_domain=True))
        applying.apply(database, author(), made.steps, reading.identity(database))
