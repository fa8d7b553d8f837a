"""Thunderbird: folders, flags, and moves in both directions, with its fast paths switched on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.browser import until
from tests.interop.conftest import Interop
from tests.interop.recorder import recording
from tests.interop.test_mail_programs import direct, home_of, put, subjects
from tests.interop.thunderbird import Thunderbird

DOMAIN = "example.test"
LIST = """
const folder = find(given[0]);
const status = await update(folder);
const found = [];
for (const header of folder.messages) found.push([header.subject, header.isRead, header.isFlagged, header.getStringProperty("keywords")]);
return [status, found];
"""
CHANGE = """
const folder = find(given[0]);
const [first, second, third] = [...folder.messages];
folder.markMessagesFlagged([first], true);
folder.addKeywordsToMessages([second], "$label2");
return await new Promise(resolve => MailServices.copy.copyMessages(folder, [third], find("Archive"), true, {
  QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"]),
  onStartCopy() {}, onProgress() {}, setMessageKey() {}, getMessageId() {},
  onStopCopy(status) { resolve(status); },
}, null, false));
"""


@pytest.fixture
def folder(interop: Interop) -> str:
    for program in ("thunderbird", "certutil"):
        interop.need(program)
    client = direct(interop, DOMAIN)
    client.create("Thunderbird")
    client.logout()
    for word in ("one", "two", "three", "four"):
        put(interop, DOMAIN, "Thunderbird", word)
    return "Thunderbird"


def test_folders_flags_and_moves(interop: Interop, folder: str) -> None:
    """Under COMPRESS=DEFLATE, with UTF8=ACCEPT, CONDSTORE, and QUOTA."""
    user, password = interop.server.user_of(DOMAIN)
    home = home_of(interop, "thunderbird")

    def listed(program: Thunderbird) -> dict[str, list[Any]]:
        status, found = program.run(LIST, folder)
        assert status == 0
        return {subject: [read, flagged, keywords] for subject, read, flagged, keywords in found}

    with (
        recording(interop.server) as recorder,
        Thunderbird(home, port=recorder.port, user=user, password=password, ca=interop.server.ca) as program,
    ):
        assert program.run("return await update(find('INBOX'))") == 0  # finds the other folders, too
        until(lambda: program.run("return !!(find(given[0]) && find('Archive'))", folder))
        assert listed(program) == {word: [False, False, ""] for word in ("one", "two", "three", "four")}
        for command in ("COMPRESS DEFLATE", "ENABLE UTF8=ACCEPT", "getquotaroot"):
            assert recorder.commands(command), command

        client = direct(interop, DOMAIN)
        client.select(folder)
        client.store("2", "+FLAGS", r"(\Seen $Label1)")
        client.store("4", "+FLAGS", r"(\Deleted)")
        client.expunge()
        put(interop, DOMAIN, folder, "five")
        expected = {
            "one": [False, False, ""],
            "two": [True, False, "$label1"],
            "three": [False, False, ""],
            "five": [False, False, ""],
        }
        recorder.clear()
        program.run("server.closeCachedConnections()")
        until(lambda: listed(program) == expected)
        assert recorder.commands(r"UID fetch .*\(CHANGEDSINCE \d+\)")

        assert program.run(CHANGE, folder) == 0
        until(lambda: "three" not in subjects(interop, DOMAIN, folder))
        assert "three" in subjects(interop, DOMAIN, "Archive")

        def flags(number: str) -> bytes:
            return bytes(client.fetch(number, "(FLAGS)")[1][0]).lower()

        until(lambda: b"\\flagged" in flags("1"))
        until(lambda: b"$label2" in flags("2"))
        client.logout()
        assert not recorder.refusals()
