"""COMPRESS (RFC 4978): DEFLATE in both directions, from the next octet on.

It is offered after the login alone, so no password is ever compressed beside other octets. TLS itself never compresses here.
"""

from __future__ import annotations

from mailserver.errors import BadSyntax, Cannot
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.session import Session
from mailserver.session.cost import CONSTANT


class CompressionActive(BadSyntax):
    """COMPRESS is active already (RFC 4978 3)."""

    imap_code = "COMPRESSIONACTIVE"


async def compress(session: Session, command: Command) -> str:
    """RFC 4978 3. Octets behind the command were sent before its answer, so it is not known what they are: it is refused."""
    reader = command.reader
    reader.read_sp()
    algorithm = reader.read_word()
    reader.read_end()
    if algorithm != "DEFLATE":
        raise BadSyntax("the only algorithm is DEFLATE")
    if session.channel.compressed:
        raise CompressionActive("DEFLATE is active already")
    if not session.services.config.compress:
        raise Cannot("compression is switched off here")
    if session.input.buffered:
        raise BadSyntax("nothing may be sent behind COMPRESS before its answer")
    session.after_reply(lambda: _start(session))
    return "DEFLATE active"


async def _start(session: Session) -> None:
    session.channel.log("compress", user=session.user)
    session.channel.start_compression()


def offer_compress(session: Session) -> list[str]:
    """COMPRESS=DEFLATE, once logged in and while it is not active."""
    if session.account is None or session.channel.compressed or not session.services.config.compress:
        return []
    return ["COMPRESS=DEFLATE"]


COMPRESS = Capability(
    "COMPRESS=DEFLATE",
    "RFC 4978",
    __name__,
    "compress",
    offer=offer_compress,
    when="logged in, until it is active",
    setting="compress",
)

COMMANDS = (
    CommandSpec("COMPRESS", LOGGED_IN, compress, capabilities=(COMPRESS,), reference="RFC 4978", cost=CONSTANT),
)
