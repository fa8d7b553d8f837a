"""A name server on loopback that knows one zone."""

from __future__ import annotations

import socket
import threading
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.zone


class NameServer:
    """Answers what stands in `lines`, a zone file's, from the next question on."""

    def __init__(self, origin: str, lines: list[str]) -> None:
        self.origin = origin
        self.lines = lines
        self.failing: set[str] = set()
        """Types that get SERVFAIL."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.sendto(b"end", self._socket.getsockname())
        self._thread.join(30)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(65536)
            if data == b"end":
                return
            self._socket.sendto(self._answer(dns.message.from_wire(data)).to_wire(), client)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        head = [f"$ORIGIN {self.origin}.", "@ 60 IN SOA ns. root. 1 60 60 60 60", "@ 60 IN NS ns."]
        zone = dns.zone.from_text("\n".join([*head, *self.lines]) + "\n", relativize=False)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        question = query.question[0]
        if dns.rdatatype.to_text(question.rdtype) in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        name: dns.name.Name | None = question.name
        while name is not None:
            node = zone.get_node(name)
            if node is None:
                if not response.answer:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            alias = zone.get_rrset(name, "CNAME")
            found = zone.get_rrset(name, question.rdtype)
            name = None
            if found is not None:
                response.answer.append(found)
            elif alias is not None:
                response.answer.append(alias)
                name = alias[0].target
        return response
