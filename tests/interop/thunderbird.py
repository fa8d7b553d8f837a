"""A headless Thunderbird, driven over Marionette (Mozilla's remote protocol) by scripts in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.interop.browser import until
from tests.server import free_ports

PREFERENCES: dict[str, object] = {
    "mail.accountmanager.accounts": "account1,account2",
    "mail.accountmanager.defaultaccount": "account1",
    "mail.accountmanager.localfoldersserver": "server2",
    "mail.account.account1.identities": "id1",
    "mail.account.account1.server": "server1",
    "mail.account.account2.server": "server2",
    "mail.server.server2.type": "none",
    "mail.server.server2.userName": "nobody",
    "mail.server.server2.hostname": "Local Folders",
    "mail.server.server2.name": "Local Folders",
    "mail.identity.id1.valid": True,
    "mail.server.server1.type": "imap",
    "mail.server.server1.hostname": "localhost",
    "mail.server.server1.socketType": 3,  # TLS
    "mail.server.server1.authMethod": 3,  # a password
    "mail.server.server1.name": "account",
    "mail.server.server1.login_at_startup": False,
    "mail.server.server1.check_new_mail": False,
    "mail.server.server1.using_subscription": False,
    "mail.server.server1.use_condstore": True,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.shell.checkDefaultClient": False,
    "mailnews.start_page.enabled": False,
    "mailnews.start_page_override.mstone": "ignore",
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
    "extensions.update.enabled": False,
    "network.manage-offline-status": False,
    "offline.autoDetect": False,
    "services.settings.server": "http://127.0.0.1:9",
    "toolkit.telemetry.enabled": False,
}

ALWAYS = """
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const server = MailServices.accounts.accounts[0].incomingServer;
const find = name => server.rootFolder.descendants.find(folder => folder.name == name);
const update = folder => new Promise(resolve => folder.QueryInterface(Ci.nsIMsgImapMailFolder).updateFolderWithListener(null, {
  QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
  OnStartRunningUrl() {},
  OnStopRunningUrl(url, code) { resolve(code); },
}));
"""
LOG_IN = """
const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
login.init("imap://localhost", null, "imap://localhost", given[0], given[1], "", "");
await Services.logins.addLoginAsync(login);
"""


class Thunderbird:
    """One process, with one account of IMAP over TLS at a port of localhost."""

    def __init__(self, home: Path, *, port: int, user: str, password: str, ca: Path) -> None:
        profile = home / "profile"
        profile.mkdir()
        for arguments in (("-N", "--empty-password"), ("-A", "-n", "ca", "-t", "C,,", "-i", str(ca))):
            subprocess.run(["certutil", *arguments, "-d", f"sql:{profile}"], check=True, capture_output=True)
        [control] = free_ports(1)
        preferences = PREFERENCES | {
            "mail.identity.id1.useremail": user,
            "mail.server.server1.userName": user,
            "mail.server.server1.port": port,
            "marionette.port": control,
        }
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
        (profile / "user.js").write_text("".join(lines))
        options = ("--headless", "--no-remote", "--marionette", "--remote-allow-system-access")
        self._process = subprocess.Popen(
            ["thunderbird", *options, "--profile", str(profile)],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._buffer, self._number = b"", 0
        try:
            self._socket = until(lambda: self._connect(control))
            self._receive()
            self._ask("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {}}})
            self._ask("Marionette:SetContext", {"value": "chrome"})
            self.run(LOG_IN, user, password)
        except BaseException:
            self.stop()
            raise

    def run(self, script: str, *given: object) -> Any:
        """The value that the body of an asynchronous function returns, which has `given`, and the names of ALWAYS."""
        whole = (
            "const given = [...arguments], done = given.pop();"
            f"(async () => {{ {ALWAYS} {script} }})().then(value => done([value, null]), error => done([null, String(error)]));"
        )
        value, error = self._ask("WebDriver:ExecuteAsyncScript", {"script": whole, "args": given, "sandbox": "system"})[
            "value"
        ]
        assert error is None, error
        return value

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.stop()

    def _connect(self, port: int) -> socket.socket | None:
        assert self._process.poll() is None, "thunderbird has ended"
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        except OSError:
            return None

    def _ask(self, name: str, arguments: dict[str, Any]) -> Any:
        self._number += 1
        message = json.dumps([0, self._number, name, arguments]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _kind, _number, error, result = self._receive()
        assert error is None, error
        return result

    def _receive(self) -> Any:
        """The next packet: its length in digits, a colon, JSON."""
        while b":" not in self._buffer:
            self._read()
        digits, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(digits):
            self._read()
        packet, self._buffer = self._buffer[: int(digits)], self._buffer[int(digits) :]
        return json.loads(packet)

    def _read(self) -> None:
        piece = self._socket.recv(65536)
        assert piece, "thunderbird has closed the connection"
        self._buffer += piece
