"""Where keys are read: one certificate of an ACME authority, asked for by a child process without those rights.

The key is made here, and only a request that it signed leaves; what comes back is judged by `transaction`, like any pair.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailserver.as_user import UserProcess, other_user
from mailserver.config.model import Acme, AcmeDns, Config
from mailserver.tls.acme_files import first_line
from mailserver.tls.acme_state import account_key
from mailserver.tls.history import CannotRecord
from mailserver.tls.pair import Fault
from mailserver.types import Secret

PATIENCE: Final = 480.0
"""Seconds until the child process is ended."""
LONGEST: Final = 1 << 20
"""Octets of its answer."""


class NotObtained(Exception):
    """There is no certificate; the text says why. `retry_after`: seconds that the authority would have us wait."""

    def __init__(self, reason: str, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@frozen
class Obtained:
    """A certificate with its chain, not judged yet, and its key; PEM both."""

    chain_pem: bytes
    key_pem: Secret


class Order:
    """Of one host."""

    def __init__(self, config: Config, host: str) -> None:
        """`config` has an [acme]."""
        assert config.acme is not None
        self._config = config
        self._acme: Acme = config.acme
        self._host = host
        self._child: UserProcess | None = None
        self._stopped = False

    def obtain(self) -> Obtained:
        """Blocks for minutes. Raises: NotObtained."""
        key, csr = make_request(self._host, self._acme.key_type)
        try:
            job = self._job(csr)
            child = self._child = UserProcess("mailserver.tls.acme_client", other_user(self._config.server))
            if self._stopped:
                child.stop()
            answer = child.ask(json.dumps(job).encode(), seconds=PATIENCE, longest=LONGEST)
        except (OSError, KeyError, CannotRecord) as error:
            raise NotObtained(str(error)) from error
        return Obtained(_chain_of(answer), key)

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped = True
        if self._child is not None:
            self._child.stop()

    def _job(self, csr: bytes) -> dict[str, Any]:
        """Raises: NotObtained, CannotRecord."""
        acme = self._acme
        wildcard = self._host.startswith("*.")
        eab = None
        if acme.eab_key_file is not None:
            eab = [acme.eab_key_id, _first_line(acme.eab_key_file, "eab_key_file")]
        return {
            "directory": acme.directory,
            "account": account_key(self._config.server.state_dir, acme.directory).reveal().decode(),
            "contact": acme.contact,
            "csr": csr.decode(),
            "challenge": "dns-01" if wildcard else acme.challenge,
            "webroot": None if acme.webroot is None else str(acme.webroot),
            "ca_file": None if acme.ca_file is None else str(acme.ca_file),
            "eab": eab,
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


def _chain_of(answer: bytes) -> bytes:
    """Raises: NotObtained."""
    try:
        match json.loads(answer):
            case {"chain": str(chain)}:
                return chain.encode("ascii")
            case {"error": str(error), "retry_after": int(retry_after)}:
                raise NotObtained(error, retry_after)
    except (ValueError, RecursionError):
        pass
    raise NotObtained("the process that asks the authority was ended, or its log has more")


def _of_dns(dns: AcmeDns) -> dict[str, Any]:
    return {
        "hook": dns.hook,
        "server": dns.server,
        "port": dns.port,
        "zone": dns.zone,
        "key_name": dns.key_name,
        "key_algorithm": dns.key_algorithm,
        "key": "" if dns.key_file is None else _first_line(dns.key_file, "key_file"),
        "wait": dns.wait,
    }


def _first_line(path: Path, key: str) -> str:
    """Raises: NotObtained."""
    faults: list[Fault] = []
    line = first_line(path, key, faults)
    if line is None:
        raise NotObtained(f"{key} {faults[0].reason}")
    return line
