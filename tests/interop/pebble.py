"""Pebble, an ACME authority for tests, with validations switched on, and the name servers that it asks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
import dns.tsigkeyring
import dns.update
import pytest
from cryptography import x509

from mailserver.tls.serving import validation
from tests.server import free_ports

ZONE = "acme.test"
KEY_NAME, KEY = "mailserver.acme.test", "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgb2N0ZXRzIQ=="
EAB_ID, EAB_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


class Pebble:
    """Both programs; `http_port` is where pages of HTTP-01 are looked for, under any name at 127.0.0.1."""

    def __init__(
        self, directory: Path, http_port: int, *, eab: bool = False, environment: dict[str, str] | None = None
    ) -> None:
        for program in ("pebble", "pebble-challtestsrv"):
            if shutil.which(program) is None:
                message = f"{program} is not installed"
                if os.environ.get("CI"):
                    pytest.fail(message)
                pytest.skip(message)
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", **(environment or {})}
        self.port, self._management, self._dns, names, tls = free_ports(5)
        self._names_url = f"http://127.0.0.1:{names}"
        authority = validation.make_ca("Authority of Pebble's own address")
        pair = validation.issue(authority, ["127.0.0.1"])
        self.ca_file = directory / "pebble-ca.pem"
        for path, octets in (
            (self.ca_file, authority[0]),
            (directory / "web.pem", pair[0]),
            (directory / "web.key", pair[1]),
        ):
            path.write_bytes(octets)
        config: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(directory / "web.pem"),
            "privateKey": str(directory / "web.key"),
            "httpPort": http_port,
            "tlsPort": tls,
            "externalAccountBindingRequired": eab,
            "certificateValidityPeriod": 90 * 86400,
            "retryAfter": {"authz": 0, "order": 0},
        }
        if eab:
            config["externalAccountMACKeys"] = {EAB_ID: EAB_KEY}
        (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
        address = "127.0.0.1"
        self._names = [
            "pebble-challtestsrv", "-defaultIPv4", address, "-defaultIPv6", "", "-dns01", f"{address}:{self._dns}",
            "-management", f"{address}:{names}", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
        ]  # fmt: skip
        self._authority = ["pebble", "-config", str(directory / "pebble.json"), "-dnsserver", f"{address}:{self._dns}"]
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def directory_url(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def table(self, more: str = "") -> str:
        """[acme]"""
        return (
            f'\n[acme]\nterms_of_service = "agreed"\ndirectory = "{self.directory_url}"\nca_file = "{self.ca_file}"\n'
            f'contact = ["mailto:postmaster@acme.test"]\n{more}'
        )

    @property
    def resolver(self) -> str:
        """Of [acme.dns]: the name server that the authority asks."""
        return f'resolver = "127.0.0.1"\nresolver_port = {self._dns}\n'

    def __enter__(self) -> Self:
        self._run("names", self._names, self._dns)
        self.begin()
        return self

    def __exit__(self, *exc: object) -> None:
        for name in list(self._running):
            self._end(name)

    def begin(self) -> None:
        self._run("authority", self._authority, self.port)

    def end(self) -> None:
        """The authority is down."""
        self._end("authority")

    @property
    def log(self) -> str:
        return (self._directory / "authority.log").read_text(errors="replace")

    def revocation(self, certificate: x509.Certificate) -> dict[str, Any]:
        """What it knows of a certificate, from its management."""
        address = f"https://127.0.0.1:{self._management}/cert-status-by-serial/{certificate.serial_number:x}"
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(address, context=context, timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def tell_names(self, what: str, **body: object) -> None:
        """To the name server's management."""
        request = urllib.request.Request(f"{self._names_url}/{what}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30):
            pass

    def hook(self) -> Path:
        """A program that makes TXT records. It notes who it is, and who may look into the process that runs it."""
        path = self._directory / "hook"
        path.write_text(
            f'#!/bin/sh\nset -e\necho "$(id -un) $(stat -c %u /proc/$PPID/maps) $1 $2" >>{self._directory}/hook.log\n'
            "case $1 in add) what=set-txt ;; remove) what=clear-txt ;; esac\n"
            f'exec curl -sSf {self._names_url}/$what -d "{{\\"host\\": \\"$2.\\", \\"value\\": \\"$3\\"}}"\n'
        )
        path.chmod(0o755)
        (self._directory / "hook.log").touch()
        (self._directory / "hook.log").chmod(0o666)
        return path

    @property
    def hook_log(self) -> list[str]:
        return (self._directory / "hook.log").read_text().splitlines()

    def _run(self, name: str, command: list[str], port: int) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, env={**os.environ, **self._environment}, stdout=log, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                return
            assert self._running[name].poll() is None, (self._directory / f"{name}.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(30)


class UpdatedZone:
    """A name server for ZONE that takes dynamic updates under KEY alone, and passes TXT records on to Pebble's."""

    def __init__(self, pebble: Pebble) -> None:
        self._pebble = pebble
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.changes: list[tuple[str, str]] = []
        self.refused = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listening.close()

    def _serve(self) -> None:
        keyring = dns.tsigkeyring.from_text({KEY_NAME: KEY})
        while True:
            try:
                connection, _peer = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                (length,) = struct.unpack("!H", stream.read(2))
                octets = stream.read(length)
                try:
                    query = dns.message.from_wire(octets, keyring=keyring)
                except dns.exception.DNSException:
                    # RFC 8945 5.3.2: NOTAUTH, with the error BADSIG in the answer's own record.
                    answer = dns.message.Message(int.from_bytes(octets[:2], "big"))
                    answer.flags = dns.flags.QR | dns.opcode.to_flags(dns.opcode.UPDATE)
                    answer.set_rcode(dns.rcode.NOTAUTH)
                    answer.use_tsig(keyring, KEY_NAME, tsig_error=dns.rcode.BADSIG)
                    wire = answer.to_wire()
                    self.refused += 1
                else:
                    wire = self._answer(query).to_wire()
                stream.write(struct.pack("!H", len(wire)) + wire)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        if query.opcode() != dns.opcode.UPDATE:
            name = query.question[0].name
            if name == dns.name.from_text(ZONE):
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SOA", "ns. root. 1 60 60 60 60"))
            return answer
        assert isinstance(query, dns.update.UpdateMessage)
        if not query.had_tsig or query.zone[0].name != dns.name.from_text(ZONE):
            answer.set_rcode(dns.rcode.REFUSED)
            self.refused += 1
            return answer
        for rrset in query.update:
            for record in rrset:
                value = b"".join(record.strings).decode()
                adds = rrset.deleting is None
                self.changes.append(("add" if adds else "remove", str(rrset.name)))
                self._pebble.tell_names("set-txt" if adds else "clear-txt", host=str(rrset.name), value=value)
        return answer
