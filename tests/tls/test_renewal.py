"""What one's own authority renews: when, with what in it, and what it leaves alone."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailserver.tls.ca import authority as making
from mailserver.tls.ca import renewal
from mailserver.tls.ca.private_ca import PrivateCa
from mailserver.tls.ca.records import CaFault
from mailserver.tls.ca.renewal import Renewable, ServedChains
from mailserver.tls.keypair.pair import parse_pair
from mailserver.tls.keypair.pem import Fault, read_file
from mailserver.tls.serving import validation
from tests.tls.site import Site
from tests.tls.test_private_ca import NOW, issue, make, number, records, revoke, the_list

HOST = "mail.example.test"
DAY = dt.timedelta(days=1)


def issued(one: PrivateCa, *names: str, days: int = 90, kind: str = "p256") -> tuple[bytes, bytes]:
    key = making.make_key(kind)
    made = one.sign(one.unlock(None), key.public_key(), names or (HOST,), "server", days=days, now=NOW)
    return making.certificate_pem(made), making.key_pem(key)


def renewed(one: PrivateCa, chain: bytes, now: dt.datetime) -> x509.Certificate:
    done = renewal.renew(one, one.unlock(None), Renewable((HOST,), (chain,), ()), now)
    return x509.load_pem_x509_certificate(done.chains[0])


def key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_two_thirds_of_its_life(tmp_path: Path) -> None:
    one = make(tmp_path)
    chain, _key = issued(one)
    # It begins an hour before it is made.
    assert not renewal.is_due(one, chain, NOW + 60 * DAY - dt.timedelta(hours=1, seconds=1))
    assert renewal.is_due(one, chain, NOW + 60 * DAY)
    assert renewal.is_due(one, chain, NOW + 100 * DAY), "it has ended"


def test_a_life_of_one_day(tmp_path: Path) -> None:
    one = make(tmp_path)
    chain, _key = issued(one, days=1)
    assert not renewal.is_due(one, chain, NOW + dt.timedelta(hours=14))
    assert renewal.is_due(one, chain, NOW + dt.timedelta(hours=15))


def test_one_that_was_signed_in_the_future(tmp_path: Path) -> None:
    one = make(tmp_path)
    chain, _key = issued(one)
    assert renewal.is_due(one, chain, NOW - DAY)


def test_names_life_and_key_stay(tmp_path: Path) -> None:
    one = make(tmp_path)
    chain, key = issued(one, HOST, "*.example.test", "192.0.2.7", days=90)
    old, now = x509.load_pem_x509_certificate(chain), NOW + 61 * DAY
    new = renewed(one, chain, now)
    alternatives = x509.SubjectAlternativeName
    assert (
        new.extensions.get_extension_for_class(alternatives).value
        == old.extensions.get_extension_for_class(alternatives).value
    )
    assert key_of(new) == key_of(old)
    assert new.serial_number != old.serial_number
    assert new.not_valid_after_utc - new.not_valid_before_utc == 90 * DAY
    assert new.not_valid_before_utc <= now
    assert parse_pair(making.certificate_pem(new), key).names == (HOST, "*.example.test")
    assert f"{new.serial_number:x}" in [record.serial for record in records(one)], "it can be revoked"


def test_the_rest_of_the_chain_stays(tmp_path: Path) -> None:
    one = make(tmp_path)
    chain, _key = issued(one)
    above = making.certificate_pem(one.certificate)
    done = renewal.renew(one, one.unlock(None), Renewable((HOST,), (chain + above,), ()), NOW + 61 * DAY)
    _new, *rest = x509.load_pem_x509_certificates(done.chains[0])
    assert rest == [one.certificate]


def test_only_what_is_due_of_two(tmp_path: Path) -> None:
    one = make(tmp_path)
    short, _key = issued(one)
    long, _key = issued(one, days=397, kind="rsa2048")
    what = Renewable((HOST,), (short, long), ())
    done = renewal.renew(one, one.unlock(None), what, NOW + 61 * DAY)
    assert (done.chains[0] != short, done.chains[1] == long) == (True, True)
    done = renewal.renew(one, one.unlock(None), what, NOW + 61 * DAY, all_of_it=True)
    assert done.chains[1] != long


def test_what_another_has_signed_is_left_alone(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    assert one.name == other.name
    chain, _key = issued(other)
    assert not renewal.is_due(one, chain, NOW + 80 * DAY)
    self_signed, _key = validation.make_self_signed([HOST], now=NOW)
    assert not renewal.is_due(one, self_signed, NOW + 390 * DAY)


def test_a_revoked_one_is_not_brought_back(tmp_path: Path) -> None:
    one = make(tmp_path)
    chain, _key = issued(one)
    revoke(one, HOST, "keyCompromise")
    with pytest.raises(CaFault, match=r"mail\.example\.test is revoked: `mailserver cert create`"):
        renewed(one, chain, NOW + 61 * DAY)
    assert len(records(one)) == 1
    # Nor where only the list knows it.
    (tmp_path / "ca.sqlite").unlink()
    with pytest.raises(CaFault, match="is revoked"):
        renewed(make(tmp_path), chain, NOW + 61 * DAY)


def test_an_authority_that_ends_as_soon_gives_nothing(tmp_path: Path) -> None:
    one = make(tmp_path, days=100)
    chain, _key = issued(one)
    assert renewal.is_due(one, chain, NOW + 61 * DAY)
    last = making.certificate_pem(renewed(one, chain, NOW + 61 * DAY))
    # What is cut by the authority's end is not cut again and again.
    assert not renewal.is_due(one, last, NOW + 99 * DAY)
    with pytest.raises(CaFault, match="certificate ended on 2026-09-09"):
        renewed(one, chain, NOW + 200 * DAY)


def test_what_is_said_of_its_end(tmp_path: Path) -> None:
    end = make(tmp_path / "ca", days=100).certificate.not_valid_after_utc
    site = Site(tmp_path).add("example.test", [HOST])
    site.tls = ['private_ca = "ca/ca.pem"']
    config = site.config()

    def told(now: dt.datetime) -> list[str]:
        said = [str(each) for each in validation.check(config, now=now) if "private_ca" in each.place and each.warning]
        assert bool(said) == bool(renewal.ends_soon(end, now))
        return said

    assert told(NOW) == []
    (tmp_path / "ca" / "ca.key").chmod(0o604)
    [exposed] = [str(each) for each in validation.check(config, now=NOW) if "private_ca" in each.place]
    assert "every user of this machine, any of whom could sign: chmod 600" in exposed
    (tmp_path / "ca" / "ca.key").chmod(0o600)
    assert "the authority ends in 89 days, on 2026-09-09: make another" in told(NOW + 10 * DAY)[0]
    assert "the authority ended on 2026-09-09" in told(NOW + 100 * DAY)[0]


def test_what_is_renewed_of_a_configuration(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", [HOST]).add("example.org", ["a.example.org", "b.example.org"])
    site.managed.add("example.org")
    config = site.config()
    served = {
        HOST: ServedChains("file", (b"one",)),
        "a.example.org": ServedChains("added", (b"two",)),
        "b.example.org": ServedChains("added", (b"two",)),
    }
    files = (tmp_path / "example.test.pem",)
    both = [Renewable((HOST,), (b"one",), files), Renewable(("a.example.org", "b.example.org"), (b"two",), ())]
    assert renewal.renewables(config, served) == both
    # Neither what stands in for something, nor another authority's.
    for origin in ("last good", "rolled back", "self-signed"):
        assert renewal.renewables(config, {**served, HOST: ServedChains(origin, (b"one",))}) == both[1:]
    assert renewal.renewables(config, {**served, "a.example.org": ServedChains("acme", (b"two",))})[1].hosts == (
        "b.example.org",
    )


def test_a_link_that_is_put_there_meanwhile_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write in the directory of a certificate must not have root write elsewhere."""
    one = make(tmp_path / "ca")
    chain, _key = issued(one)
    file, elsewhere = tmp_path / "mail.pem", tmp_path / "elsewhere"
    file.write_bytes(chain)
    elsewhere.write_bytes(b"not yours")
    what = Renewable((HOST,), (chain,), (file,))
    done = renewal.renew(one, one.unlock(None), what, NOW + 61 * DAY)

    def read_and_swap(path: Path, key: str, faults: list[Fault]) -> bytes | None:
        held = read_file(path, key, faults)
        file.unlink()
        file.symlink_to(elsewhere)
        return held

    monkeypatch.setattr(renewal, "read_file", read_and_swap)
    renewal.write(what, done)
    assert elsewhere.read_bytes() == b"not yours"
    assert (file.is_symlink(), file.stat().st_mode & 0o777) == (False, 0o644)


def test_a_file_keeps_its_mode_and_what_else_it_is(tmp_path: Path) -> None:
    one = make(tmp_path / "ca")
    chain, key = issued(one)
    file = tmp_path / "archive.pem"
    file.write_bytes(chain)
    file.chmod(0o640)
    link = tmp_path / "live.pem"
    link.symlink_to(file)
    what = Renewable((HOST,), (chain,), (link,))
    done = renewal.renew(one, one.unlock(None), what, NOW + 61 * DAY)
    assert renewal.write(what, done) == [link]
    assert (file.read_bytes(), file.stat().st_mode & 0o777, link.is_symlink()) == (done.chains[0], 0o640, True)
    assert renewal.write(what, what) == []
    for held, words in ((chain + key, "holds a key beside"), (issued(one)[0], "another certificate"), (b"", "another")):
        file.write_bytes(held)
        with pytest.raises(CaFault, match=words):
            renewal.write(what, done)
        assert file.read_bytes() == held
    file.unlink()
    with pytest.raises(CaFault, match="cannot be read"):
        renewal.write(what, done)


def test_the_list_is_signed_anew_before_it_ends(tmp_path: Path) -> None:
    one = make(tmp_path)
    issued(one)
    revoke(one, HOST)
    one.renew_list(one.unlock(None), 30, NOW)
    before = number(one)
    assert not renewal.list_is_due(one, NOW + 19 * DAY)
    assert renewal.list_is_due(one, NOW + 20 * DAY)
    assert renewal.list_is_due(one, NOW - DAY), "it begins in the future"
    renewal.renew_list(one, one.unlock(None), NOW + 20 * DAY)
    made = the_list(one)
    assert (len(made), number(one)) == (1, before + 1)
    assert made.next_update_utc is not None
    assert made.next_update_utc - made.last_update_utc == 30 * DAY
    assert not renewal.list_is_due(one, NOW + 20 * DAY)


@pytest.mark.parametrize("held", [None, b"", b"-----BEGIN X509 CRL-----\n", "of another"])
def test_a_list_that_is_none_is_due(tmp_path: Path, held: bytes | str | None) -> None:
    one = make(tmp_path / "one")
    path = tmp_path / "one" / "ca.crl"
    path.unlink()
    if held == "of another":
        held = (make(tmp_path / "other").directory / "ca.crl").read_bytes()
    if isinstance(held, bytes):
        path.write_bytes(held)
    assert renewal.list_is_due(one, NOW)
    renewal.renew_list(one, one.unlock(None), NOW)
    assert not renewal.list_is_due(one, NOW)


def test_where_the_authority_has_no_key(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", [HOST])
    one = make(tmp_path / "ca")
    assert renewal.authority_of(site.config()) is None
    site.tls = ['private_ca = "ca/ca.pem"']
    assert renewal.authority_of(site.config()) == one.directory
    (tmp_path / "ca" / "ca.key").unlink()
    assert renewal.authority_of(site.config()) is None


def test_users_whose_last_certificate_ends_soon(tmp_path: Path) -> None:
    one = make(tmp_path)
    for name, days in (
        ("anna@example.org", 40),
        ("ben@example.org", 40),
        ("ben@example.org", 397),
        ("carla@example.org", 40),
    ):
        issue(one, name, days=days)
    issue(one, HOST, days=40)
    revoke(one, "carla@example.org")
    assert renewal.users_ending(one, NOW) == ""
    said = renewal.users_ending(one, NOW + 20 * DAY)
    assert said.endswith(": anna@example.org on 2026-07-11")
    for number_ in range(30):
        issue(one, f"u{number_}@example.org", days=40)
    assert renewal.users_ending(one, NOW + 20 * DAY).endswith(" and 11 more")
    assert renewal.users_ending(one, NOW + 41 * DAY) == "", "that has been told long enough"


def test_a_url_of_ours_at_which_nothing_is(tmp_path: Path) -> None:
    one = make(tmp_path / "ca")
    site = Site(tmp_path).add("example.test", [HOST])

    def told(url: str) -> list[str]:
        site.tls = ['private_ca = "ca/ca.pem"', f'private_ca_crl_url = "{url}"']
        return [each.reason for each in validation.check(site.config(), now=NOW) if "private_ca" in each.place]

    url = f"http://{HOST}/ca.crl"
    [no_listener] = told(url)
    assert "a [[listener]] of protocol http" in no_listener
    assert told("http://elsewhere.example/ca.crl") == []
    site.more = '[[listener]]\nprotocol = "http"'
    assert told(url) == []
    (one.directory / "ca.crl").unlink()
    assert "`mailserver ca crl` makes one" in told(url)[0]


def test_a_key_that_the_service_cannot_read_is_told(tmp_path: Path) -> None:
    """As `ca init`, run by root, makes it."""
    make(tmp_path / "ca")
    site = Site(tmp_path).add("example.test", [HOST])
    site.tls = ['private_ca = "ca/ca.pem"']
    config = site.config()

    def told(**server: object) -> list[str]:
        changed = attrs.evolve(config, server=attrs.evolve(config.server, **server))
        return [each.reason for each in validation.check(changed, now=NOW) if "private_ca" in each.place]

    assert told(workers=2, user="nobody") == [], "the master reads it"
    if os.geteuid() == 0:
        [reason] = told(workers=0, user="nobody")
        assert "user 'nobody' cannot read: the server renews nothing" in reason
    assert told(workers=0, user="") == []
