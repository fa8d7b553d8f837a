"""Certificate files as people and programs leave them: taken, or refused in words that say what to do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mailserver.tls.keypair.pair import BadPair, load_pair
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, authority, quiet

NAME = "mail.example.test"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path).add("example.test", [NAME])
    site.put("example.test", site.certificate("example.test").read_bytes() + authority()[0])
    return site


def told(site: Site) -> list[str]:
    return [f"{problem.place.rpartition(' ')[2]} {problem.reason}" for problem in validation.check(site.config())]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda octets: b"\xef\xbb\xbf" + octets,
        lambda octets: octets.replace(b"\n", b"\r\n"),
        lambda octets: b"\xef\xbb\xbf" + octets.replace(b"\n", b"\r\n"),
        lambda octets: b"Bag Attributes\n  friendlyName: x\n" + octets,
        lambda octets: octets.rstrip(b"\n"),
        lambda octets: b"\n\n  \n" + octets + b"\n\n",
    ],
    ids=["byte order mark", "CRLF", "both", "text before", "no last line end", "empty lines"],
)
def test_what_editors_add_is_taken(site: Site, spoil) -> None:
    for path in (site.certificate("example.test"), site.key("example.test")):
        path.write_bytes(spoil(path.read_bytes()))
    assert told(site) == []
    assert Client().connect(TlsPolicy(site.config(), quiet), NAME.encode()).sent == 2, "the chain is sent whole"


def test_the_same_in_other_line_ends_is_the_same(site: Site) -> None:
    policy = TlsPolicy(site.config(), quiet)
    site.certificate("example.test").write_bytes(site.certificate("example.test").read_bytes().replace(b"\n", b"\r\n"))
    assert [outcome.state for outcome in policy.reload(site.config())] == ["unchanged"]


@pytest.mark.parametrize("cut", [100, 400, -30])
def test_half_written(site: Site, cut: int) -> None:
    """The last good one is served on."""
    policy = TlsPolicy(site.config(), quiet)
    before = Client().connect(policy, NAME.encode()).fingerprint
    site.renew("example.test")
    whole = site.certificate("example.test").read_bytes() + authority()[0]
    site.certificate("example.test").write_bytes(whole[:cut])
    assert told(site) == [
        "certificate ends within a certificate: it is being written, or was truncated; replace the file by renaming a new one"
    ]
    (outcome,) = policy.reload(site.config())
    assert outcome.state == "refused"
    assert Client().connect(policy, NAME.encode()).fingerprint == before


@pytest.mark.parametrize("cut", [0, 20, 100, -20])
def test_half_a_key(site: Site, cut: int) -> None:
    site.key("example.test").write_bytes(site.key("example.test").read_bytes()[:cut])
    (line,) = told(site)
    said = "is empty" if cut == 0 else "is not a private key in PEM" if cut == 20 else "cannot be decoded: copy"
    assert line.startswith(f"key {said}")


def test_a_key_without_its_certificate(site: Site) -> None:
    site.certificate("example.test").write_bytes(site.key("example.test").read_bytes())
    assert told(site) == ["certificate is a private key, not a certificate in PEM: name the certificate's file here"]
    site.certificate("example.test").unlink()
    assert told(site) == ["certificate cannot be read: No such file or directory"]


def test_the_authority_first(site: Site) -> None:
    leaf, chain = load_pair(site.certificate("example.test"), site.key("example.test")).chain_pem, authority()[0]
    own = leaf[: leaf.index(b"-----END") + 26]
    site.certificate("example.test").write_bytes(chain + own)
    assert told(site) == [
        "certificate has its chain out of order: certificate 2 is the one of the key, and must come first"
    ]


def test_a_chain_of_another_authority(site: Site) -> None:
    own = site.certificate("example.test").read_bytes().partition(b"-----END CERTIFICATE-----\n")
    site.certificate("example.test").write_bytes(b"".join(own[:2]) + validation.make_ca("Another")[0])
    (line,) = told(site)
    assert (
        line
        == "certificate has its chain out of order: certificate 2 did not sign certificate 1: the server's own comes first, then its issuer, and so on"
    )
    assert Client().connect(TlsPolicy(site.config(), quiet), NAME.encode()).names == (NAME,), "some clients take it"


def test_a_fifo_or_a_directory_does_not_hold_the_start(site: Site) -> None:
    site.certificate("example.test").unlink()
    os.mkfifo(site.certificate("example.test"))
    site.key("example.test").unlink()
    site.key("example.test").mkdir(mode=0o700)
    assert told(site) == ["certificate must be a regular file", "key must be a regular file"]


class TestSwappedLinks:
    """certbot's layout: live/ has links to archive/, each changed by itself."""

    @pytest.fixture
    def linked(self, site: Site) -> Site:
        for number in (1, 2):
            site.renew("example.test")
            for path in (site.certificate("example.test"), site.key("example.test")):
                path.rename(site.directory / f"{path.name}.{number}")
        self.turn(site, 1)
        return site

    def turn(self, site: Site, number: int) -> None:
        for path in (site.certificate("example.test"), site.key("example.test")):
            (site.directory / "new").symlink_to(site.directory / f"{path.name}.{number}")
            (site.directory / "new").rename(path)

    def test_swapped_between_the_two_readings(self, linked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are read again, as they have changed."""
        from mailserver.tls.keypair import pair

        real, turned = pair.read_file, []

        def read_file(path: Path, key: str, faults: list[Fault]) -> bytes | None:
            if key == "key" and not turned:
                turned.append(True)
                self.turn(linked, 2)
            return real(path, key, faults)

        monkeypatch.setattr(pair, "read_file", read_file)
        found = load_pair(linked.certificate("example.test"), linked.key("example.test"))
        second = load_pair(linked.directory / "example.test.pem.2", linked.directory / "example.test.key.2")
        assert found.digest == second.digest

    def test_two_that_never_fit_are_told(self, linked: Site) -> None:
        (linked.directory / "new").symlink_to(linked.directory / "example.test.key.2")
        (linked.directory / "new").rename(linked.key("example.test"))
        with pytest.raises(BadPair, match="key does not belong to the certificate"):
            load_pair(linked.certificate("example.test"), linked.key("example.test"))

    def test_swapped_all_the_time(self, linked: Site) -> None:
        """What is read is one of the two, or refused; never a mixture."""
        good = {
            load_pair(linked.directory / f"example.test.pem.{n}", linked.directory / f"example.test.key.{n}").digest
            for n in (1, 2)
        }
        done, refusals = threading.Event(), []

        def swap() -> None:
            number = 1
            while not done.is_set():
                self.turn(linked, number := 3 - number)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(100):
                try:
                    found = load_pair(linked.certificate("example.test"), linked.key("example.test"))
                except BadPair as bad:
                    refusals.append(str(bad))
                else:
                    assert found.digest in good
        finally:
            done.set()
            thread.join()
        assert all("does not belong" in refusal for refusal in refusals)
