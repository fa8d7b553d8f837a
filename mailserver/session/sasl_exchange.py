"""A SASL exchange of a session (RFC 4422 3), for IMAP, POP3 and SMTP.

Base64, `=` for an empty initial response (RFC 4959 3, RFC 5034 4, RFC 4954 4) and `*` to cancel are the same in all
three. The last message of the server is sent as a challenge that the client answers by nothing (RFC 4422 5).
"""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable
from typing import ClassVar

from mailserver.auth.interfaces import Authenticator, LoginContext, ShownCertificate, User
from mailserver.errors import AuthFailed, BadSyntax, MailError
from mailserver.explain.trace import Rule
from mailserver.sasl.mechanism import Challenge, Credentials, Done, Failed, Mechanism, NeedKeys
from mailserver.sasl.registry import MECHANISMS, Situation, sends_password
from mailserver.session.channel import Channel, ConnectionInfo


class InvalidBase64(BadSyntax):
    """RFC 3501 6.2.2, RFC 5034 4, RFC 4954 4."""

    smtp_reply: ClassVar[tuple[int, str]] = (501, "5.5.2")
    text = "that is not base64"


class ExchangeCancelled(MailError):
    """The client sent `*`."""

    imap_status: ClassVar[str] = "BAD"
    smtp_reply: ClassVar[tuple[int, str]] = (501, "5.7.0")
    text = "authentication was cancelled"


class ProofMissing(ExchangeCancelled):
    """The client has learned the salt of a name by SCRAM, and gives no proof (`SaslExchange.lacks_proof`)."""


def situation(channel: Channel, authenticator: Authenticator) -> Situation:
    """The facts that decide which mechanisms can succeed on this connection now."""
    tls, abilities = channel.info.tls, authenticator.abilities()
    return Situation(
        # Computed only where it is needed.
        binding=channel.channel_binding() if abilities.scram_hashes else None,
        certified=tls.client.user if tls is not None and tls.client is not None else "",
        scram_hashes=abilities.scram_hashes,
        trusts_certificates=abilities.certificates,
        passwords=channel.info.password_allowed,
    )


def login_context(protocol: str, info: ConnectionInfo) -> LoginContext:
    """The facts of a connection for the login service."""
    tls = info.tls
    client = tls.client if tls else None
    shown = None
    if client is not None:
        label = (
            f"the certificate of {client.user or 'no user'} (subject {client.subject}, SHA-256 {client.fingerprint})"
        )
        shown = ShownCertificate(client.user, label)
    return LoginContext(
        protocol,
        info.peer,
        tls.host if tls else None,
        info.session_id,
        shown,
        server_name=tls.server_name if tls else None,
        tls=tls.version if tls else "",
    )


def may_begin(info: ConnectionInfo, mechanism: str) -> bool:
    """May a client begin that mechanism on the connection as it is? The name is upper case, and may be anything."""
    return info.password_allowed or (info.proofs_allowed and not sends_password(mechanism))


def report_exposed_password(
    channel: Channel, authenticator: Authenticator, protocol: str, credentials: Credentials, method: str
) -> None:
    """Report a password that came before TLS and was refused. It may be checked later, without an answer to the client."""
    context = login_context(protocol, channel.info)
    channel.log("cleartext-login", user=authenticator.shown_name(credentials.name, context), method=method)
    authenticator.exposed(
        credentials,
        method,
        context,
        lambda user: channel.log("password-exposed", user=user, method=method),
    )


class ExposedExchange:
    """An exchange that was refused before TLS. A client that does not wait for the challenge sends its password all the same."""

    def __init__(self, channel: Channel, authenticator: Authenticator, mechanism: str) -> None:
        self._channel = channel
        self._authenticator = authenticator
        self._method = mechanism.upper()
        sends = sends_password(self._method)
        self._mechanism: Mechanism | None = MECHANISMS[self._method].make(Situation(), False) if sends else None

    def take(self, line: bytes) -> None:
        """The client's next line, as it was sent; the initial response, if there is one, is the first."""
        mechanism, self._mechanism = self._mechanism, None
        if mechanism is None:
            return
        try:
            step = mechanism.step(_decode(line))
        except InvalidBase64:
            return
        match step:
            case Challenge():
                self._mechanism = mechanism
            case Done(Credentials() as credentials):
                protocol = self._channel.info.protocol
                report_exposed_password(self._channel, self._authenticator, protocol, credentials, self._method)


class SaslExchange:
    """One exchange, until the user is verified."""

    def __init__(
        self,
        mechanism: Mechanism,
        ask: Callable[[bytes], Awaitable[bytes]],
        authenticator: Authenticator,
        context: LoginContext,
        *,
        last_with_success: bool = False,
    ) -> None:
        """`ask` sends a challenge, in base64, and reads the client's line. It may raise any MailError.

        `last_with_success`: the protocol's positive answer takes the server's last message, so it is kept in `last`.
        """
        self.name = ""
        """The name that the client claims, once it is known, as sent."""
        self.lacks_proof = False
        """Has the exchange ended as the client, which had the salt of a name, gave no proof? It counts as a failed login."""
        self.last: bytes | None = None
        """The server's last message, in base64, if there is one that is still to be sent."""
        self._last_with_success = last_with_success
        self._mechanism = mechanism
        self._ask = ask
        self._authenticator = authenticator
        self._context = context

    async def run(self, initial: bytes | None) -> User:
        """Begin with the initial response as it was sent, None without one.

        Raises: BadSyntax and ExchangeCancelled, which are no failed login unless `lacks_proof`; AuthFailed, AuthorizationFailed,
        AuthUnavailable.
        """
        step = self._mechanism.step(None if initial is None else b"" if initial == b"=" else _decode(initial))
        while True:
            match step:
                case Challenge(data):
                    step = self._mechanism.step(await self._answer_to(data))
                case NeedKeys(name, hash_name, take):
                    self.name = name
                    challenge = take(await self._authenticator.scram_keys(name, hash_name, self._context))
                    step = self._mechanism.step(await self._proof(challenge.data))
                case Failed(reason):
                    raise AuthFailed(reason)
                case Done(claim, last):
                    self.name = claim.name
                    user = await self._authenticator.login(claim, self._context)
                    if last is not None and self._last_with_success:
                        self.last = binascii.b2a_base64(last, newline=False)
                    elif last is not None and await self._answer_to(last):
                        raise AuthFailed("the client answered the server's last message by more than an empty line")
                    return user

    async def _proof(self, challenge: bytes) -> bytes:
        try:
            return await self._answer_to(challenge)
        except (BadSyntax, ExchangeCancelled):
            self._context.trace.rule = Rule.CANCELLED
            self.lacks_proof = True
            raise

    async def _answer_to(self, data: bytes) -> bytes:
        line = await self._ask(binascii.b2a_base64(data, newline=False))
        if line == b"*":
            raise ExchangeCancelled
        return _decode(line)


def _decode(text: bytes) -> bytes:
    # The strict decoder ignores padding behind whole groups.
    if len(text) % 4:
        raise InvalidBase64
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise InvalidBase64 from None
