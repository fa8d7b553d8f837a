"""Where keys are read: one certificate of an ACME authority, asked for by a child process without those rights.

The key is made here, and only a request that it signed leaves; what comes back is judged by `transaction`, like any pair.
An order is remembered with its key as soon as the authority has it, until its certificate has been judged: a process that
ends meanwhile leaves it to the next one.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

import attrs
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailserver.config.model import Acme, AcmeDns, Config
from mailserver.tls.acme import acme_state
from mailserver.tls.acme.acme_concurrency import challenge_of
from mailserver.tls.acme.acme_state import Begun
from mailserver.tls.acme.child import Child, NotObtained, read_key
from mailserver.tls.acme.renewal_info import identifier
from mailserver.tls.acme.schedule import Held
from mailserver.tls.state.history import CannotRecord
from mailserver.types import Secret

KEPT: Final = 7 * 86400
"""Seconds for which an order is gone on with: authorities give up pending ones after a week."""
_LONGEST_ADDRESS: Final = 2000


@frozen
class Obtained:
    """A certificate with its chain, not judged yet, and its key; PEM both."""

    chain_pem: bytes
    key_pem: Secret


class Order:
    """Of one host."""

    def __init__(self, config: Config, held: Held) -> None:
        """For the host of what is held. `config` has an [acme]."""
        assert config.acme is not None
        self._directory = config.server.state_dir
        self._acme: Acme = config.acme
        self._held = held
        self._child = Child(config)

    def obtain(self) -> Obtained:
        """Blocks for minutes. Raises: NotObtained."""
        try:
            begun = self._begun() or self._new()
            answer = self._child.ask("obtain", self._job(begun), order=lambda address: self._save(begun, address))
            match answer:
                case {"chain": str(chain)} if chain.isascii():
                    return Obtained(chain.encode(), begun.key_pem)
            self.close()
        except NotObtained as refused:
            if refused.decided:
                self.close()
            raise
        except CannotRecord as error:
            raise NotObtained(str(error)) from error
        raise NotObtained("the authority's certificate is no PEM")

    def close(self) -> None:
        """Its certificate was judged, or there will be none. Raises nothing: what is left is gone on with, and ends."""
        with contextlib.suppress(CannotRecord):
            acme_state.drop_order(self._directory, self._held.host)

    def stop(self) -> None:
        """End it, from another thread."""
        self._child.stop()

    def _begun(self) -> Begun | None:
        """What an earlier attempt has left. Raises: CannotRecord."""
        begun = acme_state.begun(self._directory, self._held.host)
        wanted = (self._acme.directory, self._acme.key_type)
        if begun is None or (begun.directory, begun.key_type) != wanted or abs(time.time() - begun.begun) > KEPT:
            return None
        return begun

    def _new(self) -> Begun:
        key, request = make_request(self._held.host, self._acme.key_type)
        return Begun(self._held.host, self._acme.directory, self._acme.key_type, "", key, request, int(time.time()))

    def _save(self, begun: Begun, address: str) -> None:
        """Raises: CannotRecord."""
        if address != begun.address and len(address) <= _LONGEST_ADDRESS:
            acme_state.save_order(self._directory, attrs.evolve(begun, address=address, begun=int(time.time())))

    def _job(self, begun: Begun) -> dict[str, Any]:
        """Raises: NotObtained."""
        acme, host = self._acme, self._held.host
        return {
            "host": host,
            "order": begun.address,
            "csr": begun.request_pem.decode(),
            "replaces": identifier(self._held.of_authority),
            "challenge": challenge_of(acme, host),
            "webroot": None if acme.webroot is None else str(acme.webroot),
            "dns": None if acme.dns is None else _of_dns(acme.dns),
        }


def make_request(host: str, key_type: str) -> tuple[Secret, bytes]:
    """A new key and a certificate signing request of it (RFC 2986), PEM."""
    of_rsa = key_type == "rsa"
    key = rsa.generate_private_key(65537, 2048) if of_rsa else ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    # No subject: a common name may have 64 octets, and nobody reads it any more.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Secret(octets), request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _of_dns(dns: AcmeDns) -> dict[str, Any]:
    return {
        "hook": dns.hook,
        "server": dns.server,
        "port": dns.port,
        "zone": dns.zone,
        "key_name": dns.key_name,
        "key_algorithm": dns.key_algorithm,
        "key": "" if dns.key_file is None else read_key(dns.key_file, "key_file"),
        "wait": dns.wait,
        "resolver": dns.resolver,
        "resolver_port": dns.resolver_port,
    }
