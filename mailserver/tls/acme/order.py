"""An order for one certificate, run in the process that reads keys through a child process without those rights.

The key is made here, and only a request that it signed leaves. `transaction` validates what comes back, like any pair. An
order is recorded with its key as soon as the authority has accepted it, until its certificate is validated: after a restart
the next process continues it.
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
from mailserver.tls.acme.acme_state import PendingOrder
from mailserver.tls.acme.child import AcmeError, Child, read_key
from mailserver.tls.acme.renewal_info import identifier
from mailserver.tls.acme.schedule import CurrentCertificate
from mailserver.tls.state.history import CannotRecord
from mailserver.types import Secret

KEPT: Final = 7 * 86400
"""Seconds for which a recorded order is continued: authorities drop pending ones after a week."""
_LONGEST_ADDRESS: Final = 2000


@frozen
class Obtained:
    """A certificate with its chain, not validated yet, and its key; both PEM."""

    chain_pem: bytes
    key_pem: Secret


class Order:
    """The order of one host."""

    def __init__(self, config: Config, held: CurrentCertificate) -> None:
        """Prepare an order that replaces `held`. `config` must have an [acme]."""
        assert config.acme is not None
        self._directory = config.server.state_dir
        self._acme: Acme = config.acme
        self._held = held
        self._child = Child(config)

    def obtain(self) -> Obtained:
        """Place or continue the order. Blocks for minutes. Raises: AcmeError."""
        try:
            order = self._pending() or self._new()
            answer = self._child.ask("obtain", self._job(order), order=lambda address: self._save(order, address))
            match answer:
                case {"chain": str(chain)} if chain.isascii():
                    return Obtained(chain.encode(), order.key_pem)
            self.close()
        except AcmeError as refused:
            if refused.decided:
                self.close()
            raise
        except CannotRecord as error:
            raise AcmeError(str(error)) from error
        raise AcmeError("the authority's certificate is not PEM")

    def close(self) -> None:
        """Forget the order: its certificate was validated, or none will come.

        Raises nothing: an order that stays recorded is continued later, and ends then.
        """
        with contextlib.suppress(CannotRecord):
            acme_state.drop_order(self._directory, self._held.host)

    def stop(self) -> None:
        """Stop the order, from another thread."""
        self._child.stop()

    def _pending(self) -> PendingOrder | None:
        """Return the usable order of an earlier attempt. Raises: CannotRecord."""
        order = acme_state.pending_order(self._directory, self._held.host)
        wanted = (self._acme.directory, self._acme.key_type)
        if order is None or (order.directory, order.key_type) != wanted or abs(time.time() - order.placed) > KEPT:
            return None
        return order

    def _new(self) -> PendingOrder:
        key, request = make_request(self._held.host, self._acme.key_type)
        return PendingOrder(
            self._held.host, self._acme.directory, self._acme.key_type, "", key, request, int(time.time())
        )

    def _save(self, order: PendingOrder, address: str) -> None:
        """Record the order once its address is known. Raises: CannotRecord."""
        if address != order.address and len(address) <= _LONGEST_ADDRESS:
            acme_state.save_order(self._directory, attrs.evolve(order, address=address, placed=int(time.time())))

    def _job(self, order: PendingOrder) -> dict[str, Any]:
        """Return the child's job. Raises: AcmeError."""
        acme, host = self._acme, self._held.host
        return {
            "host": host,
            "order": order.address,
            "csr": order.request_pem.decode(),
            "replaces": identifier(self._held.of_authority),
            "challenge": challenge_of(acme, host),
            "webroot": None if acme.webroot is None else str(acme.webroot),
            "dns": None if acme.dns is None else _of_dns(acme.dns),
        }


def make_request(host: str, key_type: str) -> tuple[Secret, bytes]:
    """Make a key and its certificate signing request (RFC 2986), both PEM."""
    of_rsa = key_type == "rsa"
    key = rsa.generate_private_key(65537, 2048) if of_rsa else ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    # No subject: a common name is limited to 64 octets, and clients ignore it.
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
