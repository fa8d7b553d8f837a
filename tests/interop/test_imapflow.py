"""Node's imapflow (https://imapflow.com), where IMAPFLOW names the directory whose node_modules has it: `npm install imapflow`.

Debian does not have it, so that continuous integration does not ask for it either.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import Interop
from tests.interop.recorder import recording
from tests.interop.test_mail_programs import direct, put

DOMAIN = "example.test"


@pytest.mark.skipif("IMAPFLOW" not in os.environ, reason="imapflow is not installed")
def test_it_resynchronizes(interop: Interop) -> None:
    """CONDSTORE, QRESYNC, COMPRESS=DEFLATE, OBJECTID, LIST-STATUS, IMAP4rev2, UTF8=ACCEPT."""
    user, password = interop.server.user_of(DOMAIN)
    client = direct(interop, DOMAIN)
    client.create("imapflow")
    for word in ("one", "two", "three"):
        put(interop, DOMAIN, "imapflow", word)
    with recording(interop.server) as recorder:
        script = Path(__file__).with_name("imapflow.js")
        arguments = [str(recorder.port), user, password, str(interop.server.ca), "imapflow"]
        with subprocess.Popen(
            ["node", str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as node:
            assert node.stdin
            assert node.stdout
            first = json.loads(node.stdout.readline())
            client.select("imapflow")
            client.store("2", "+FLAGS", r"(\Deleted)")
            client.expunge()
            client.store("2", "+FLAGS", r"(\Seen $Label1)")
            client.logout()
            node.stdin.write("go on\n")
            node.stdin.flush()
            second = json.loads(node.stdout.readline())
            assert node.wait(60) == 0
        assert first["enabled"] == ["CONDSTORE", "IMAP4REV2", "QRESYNC", "UTF8=ACCEPT"]
        assert first["count"] == 3
        assert first["mailboxId"].startswith("F")
        assert len(set(first["ids"])) == 3
        assert second["vanished"] == [2]
        assert second["changed"] == [[3, ["$Label1", "\\Seen"]]], "its own change is none"
        assert recorder.commands("COMPRESS DEFLATE")
        assert recorder.commands(r"SELECT imapflow \(QRESYNC \(")
        assert not recorder.refusals()
