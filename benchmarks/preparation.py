"""The servers of a run: started beside one another, with the same accounts and passwords in clear, so that no hash hides the rest."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import define

from benchmarks import relay
from benchmarks.accounts import HOSTILE_USERS, USERS, Accounts, Mailboxes, name_accounts
from benchmarks.mail import Mail
from benchmarks.servers import DovecotServer, Mailserver, StockMailserver, TestedServer
from benchmarks.settings import MORE_PORTS, TUNED
from tests.dovecot import Dovecot
from tests.server import Server, free_ports


@define
class Servers:
    """The servers of a run, their accounts, and the next hop of all submissions."""

    ours: Mailserver
    theirs: DovecotServer
    stock: StockMailserver | None
    accounts: Accounts
    mailboxes: Mailboxes
    sink: relay.Sink

    @property
    def sides(self) -> list[TestedServer]:
        """Ours, Dovecot, and ours with stock transports, if it is measured."""
        return [self.ours, self.theirs, *([self.stock] if self.stock is not None else ())]

    def with_mail(self, mail: Mail) -> tuple[Accounts, Mailboxes]:
        """Return further accounts with other mail."""
        accounts = name_accounts(self.accounts.passwords, mail, USERS)
        directory = self.mailboxes.directory.with_name("other-messages")
        return accounts, Mailboxes(accounts, self.ours, None, self.theirs, directory)

    def stop(self) -> None:
        """Stop all."""
        self.ours.server.stop()
        if self.stock is not None:
            self.stock.server.stop()
        self.theirs.dovecot.stop()


def make_ours(directory: Path, sink: relay.Sink, workers: int, transport: str) -> Server:
    """Make a server of ours with the accounts of single operations and people, not started."""
    server = Server(directory, users=USERS + HOSTILE_USERS, workers=workers)
    text = server.config.read_text()
    text = re.sub(r'(protocol = "(?:imap|pop3|submission)"\n)', r"\1allow_cleartext = true\n", text)
    text = re.sub(r"(?m)^transport = .*$", f'transport = "{transport}"', text)
    text += "\n[limits]\nconnections = 10100\nsessions_per_user = 10000\nunauthenticated_per_address = 10000\n"
    text += f'\n[submission.relay]\nhost = "127.0.0.1"\nport = {sink.port}\ntls = "none"\n'
    server.config.write_text(text)
    (server.dir / "users").write_text(
        "".join(f"{name}:{{PLAIN}}{word}::::::\n" for name, word in server.accounts.items())
    )
    return server


def prepare(
    directory: Path, mail: Mail, *, workers: int = 0, settings: str = TUNED, with_stock: bool = True
) -> Servers:
    """Start the servers, with accounts that have no mail yet."""
    directory.chmod(0o755)
    sink = relay.Sink()
    sink.start()
    server = make_ours(directory / "ours", sink, workers, Mailserver.transport)
    root = directory / "theirs-mail"
    root.mkdir()
    key, pem = server.dir / "certs" / "mail.example.test.key", server.dir / "certs" / "mail.example.test.pem"
    pop3s, submissions = free_ports(2)
    ports = MORE_PORTS.format(pop3s=pop3s, submissions=submissions)
    dovecot = Dovecot(
        directory / "theirs",
        root,
        server.accounts,
        owner="mail",
        certificate=pem,
        key=key,
        protocols="imap pop3 lmtp submission",
        more=f"submission_relay_host = 127.0.0.1\nsubmission_relay_port = {sink.port}\n{settings}{ports}",
    )
    dovecot.ports |= {"pop3s": pop3s, "submissions": submissions}
    dovecot.own(root)
    accounts = name_accounts(server.accounts, mail)
    second = None
    if with_stock:
        second = make_ours(directory / "stock", sink, workers, StockMailserver.transport)
        (second.dir / "users").write_text((server.dir / "users").read_text())
        second.start()
    server.start()
    dovecot.start()
    # A server whose ports were taken meanwhile has others once it is started.
    ours, theirs = Mailserver(server), DovecotServer(dovecot, server.ca)
    stock = StockMailserver(second) if second is not None else None
    return Servers(
        ours, theirs, stock, accounts, Mailboxes(accounts, ours, stock, theirs, directory / "messages"), sink
    )
