"""The account's key and the attempts outlive the server, are their owner's alone, and a damaged file is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import josepy
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mailserver.tls.acme import acme_state
from mailserver.tls.acme.acme_state import PendingOrder
from mailserver.tls.acme.order import make_request
from mailserver.tls.acme.schedule import Attempts, Window
from mailserver.tls.state.history import CannotRecord
from mailserver.types import Secret
from tests.tls.site import Site


def test_one_key_for_each_authority(tmp_path: Path) -> None:
    first = acme_state.account_key(tmp_path, "https://one.test/dir")
    assert acme_state.account_key(tmp_path, "https://one.test/dir") == first
    assert acme_state.account_key(tmp_path, "https://two.test/dir") != first
    assert (tmp_path / acme_state.FILE).stat().st_mode & 0o777 == 0o600


def test_the_thumbprint_is_that_of_another_implementation(tmp_path: Path) -> None:
    key = acme_state.account_key(tmp_path, "https://one.test/dir")
    other = josepy.JWK.load(key.reveal())
    assert acme_state.thumbprint(key) == josepy.b64encode(other.thumbprint()).decode()


def test_attempts_are_remembered(tmp_path: Path) -> None:
    acme_state.save(tmp_path, Attempts("a").failed("why", 5))
    acme_state.save(tmp_path, Attempts("b").failed("no", 6))
    acme_state.save(tmp_path, Attempts("b").succeeded(7))
    assert acme_state.all_attempts(tmp_path) == {"a": Attempts("a").failed("why", 5), "b": Attempts("b").succeeded(7)}


def test_windows_and_orders_are_remembered_with_their_keys(tmp_path: Path) -> None:
    window = Window("a", "first", 5, 4, 6, 7, "https://ca.test/why")
    acme_state.save_windows(tmp_path, [window, Window("b", "second", 0, 0, 0, 7)])
    acme_state.save_windows(tmp_path, [Window("b", "second", 1, 1, 2, 8)])
    assert acme_state.all_windows(tmp_path) == {"a": window, "b": Window("b", "second", 1, 1, 2, 8)}
    order = PendingOrder(
        "a", "https://one.test/dir", "ecdsa", "https://one.test/order/1", Secret(b"a key"), b"a request", 5
    )
    acme_state.save_order(tmp_path, order)
    assert acme_state.pending_order(tmp_path, "a") == order
    acme_state.drop_order(tmp_path, "a")
    assert acme_state.pending_order(tmp_path, "a") is None
    assert b"a key" not in (tmp_path / acme_state.FILE).read_bytes()


def test_a_change_of_keys_keeps_both_until_it_is_ended(tmp_path: Path) -> None:
    place = (tmp_path, "https://one.test/dir")
    old = acme_state.account_key(*place)
    assert not acme_state.is_changing(*place)
    new = acme_state.next_account_key(*place)
    assert acme_state.next_account_key(*place) == new != old
    assert acme_state.is_changing(*place)
    assert acme_state.account_key(*place) == old
    acme_state.take_next_key(*place)
    assert acme_state.account_key(*place) == new
    assert not acme_state.is_changing(*place)
    octets = (tmp_path / acme_state.FILE).read_bytes()
    assert new.reveal() in octets
    assert old.reveal() not in octets, "it may be known to others"
    dropped = acme_state.next_account_key(*place)
    acme_state.drop_next_key(*place)
    assert acme_state.next_account_key(*place) != dropped
    acme_state.forget_account(*place)
    assert acme_state.account_key(*place) != new
    assert not acme_state.is_changing(*place)


def test_a_file_of_before_gets_what_it_lacks(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / acme_state.FILE))
    connection.execute("CREATE TABLE account (directory TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID")
    connection.execute("INSERT INTO account VALUES ('https://one.test/dir', x'6b')")
    connection.close()
    assert acme_state.all_windows(tmp_path) == {}
    assert acme_state.account_key(tmp_path, "https://one.test/dir") == Secret(b"k")


def test_two_that_want_a_key_at_once_get_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from mailserver.tls.acme.acme_state import *; "
        "print(thumbprint(account_key(pathlib.Path(sys.argv[1]), 'https://one.test/dir')))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / acme_state.FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(CannotRecord, match="cannot be used"):
        acme_state.all_attempts(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotRecord, match="cannot be used"):
        acme_state.account_key(tmp_path / "file", "https://one.test/dir")


def test_a_configuration_gets_the_thumbprint_only_where_a_host_wants_it(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    site.more = '[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n'
    assert acme_state.with_account(site.config()) == site.config()
    assert not (tmp_path / "state").exists()
    site.managed.add("example.test")
    site.of_domain["example.test"] = ["acme = true"]
    config = acme_state.with_account(site.config())
    assert config.acme is not None
    key = acme_state.account_key(tmp_path / "state", config.acme.directory)
    assert config.acme.thumbprint == acme_state.thumbprint(key)


@pytest.mark.parametrize("key_type", ["ecdsa", "rsa"])
def test_a_request_names_the_host_and_is_signed_by_the_new_key(key_type: str) -> None:
    key, octets = make_request("*.example.test", key_type)
    request = x509.load_pem_x509_csr(octets)
    assert request.is_signature_valid
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.example.test"]
    private = serialization.load_pem_private_key(key.reveal(), None)
    assert private.public_key() == request.public_key()
