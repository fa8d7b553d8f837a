"""What clients fetch: read back as they read it."""

from __future__ import annotations

import plistlib
from xml.etree import ElementTree as ET

import pytest

from mailserver.config.model import Config
from tests.http.world import Answered, World, config_of

HEAD = b"""
[server]
hostname = "server.example.net"
user = "root"
[mail]
root = "/var/mail/domains"
[auth]
backends = ["file:/etc/mailserver/users"]
"""
DOMAINS = b"""
[[domain]]
name = "example.test"
hosts = ["*.other.example.test", "mail.example.test", "imap.example.test"]
certificate = "a.pem"
key = "a.key"
mx = ["mx1.example.net", "mx2.example.net"]
[[domain.site]]
hosts = ["mta-sts.example.test"]
certificate = "b.pem"
key = "b.key"
[domain.mta_sts]
mode = "enforce"
max_age = 86400
[[domain]]
name = "example.org"
hosts = ["*.example.net"]
certificate = "c.pem"
key = "c.key"
[[domain]]
name = "example.com"
hosts = ["*.example.com"]
certificate = "d.pem"
key = "d.key"
[[domain]]
name = "xn--bcher-kva.example"
hosts = ["mail.xn--bcher-kva.example"]
certificate = "e.pem"
key = "e.key"
"""
LISTENERS = b"""
[[listener]]
protocol = "imap"
[[listener]]
protocol = "imaps"
port = 1993
[[listener]]
protocol = "imap"
port = 1143
addresses = ["127.0.0.1"]
allow_cleartext = true
[[listener]]
protocol = "imap"
port = 2143
ssl = "no"
[[listener]]
protocol = "submission"
[[listener]]
protocol = "lmtp"
[[listener]]
protocol = "https"
"""
CONFIG = config_of(HEAD + DOMAINS + LISTENERS)
AUTOCONFIG = "/mail/config-v1.1.xml"
OUTLOOK = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
REQUEST = """<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>{address}</EMailAddress>
    <AcceptableResponseSchema>{schema}</AcceptableResponseSchema>
  </Request>
</Autodiscover>
"""


def get(path: str, *, host: str = "mail.example.test", tls: bool = True, config: Config = CONFIG) -> Answered:
    return World(tls=tls, peer="192.0.2.7", config=config).get(path, host=host)


def servers(answered: Answered) -> list[tuple[str, ...]]:
    assert answered.status == 200, answered
    root = ET.fromstring(answered.body)
    assert (root.tag, root.get("version")) == ("clientConfig", "1.1")
    return [
        (
            each.tag,
            each.get("type") or "",
            *(each.findtext(name) or "" for name in ("hostname", "port", "socketType", "username")),
        )
        for each in root.iter()
        if each.tag.endswith("Server")
    ]


EXPECTED = [
    ("incomingServer", "imap", "mail.example.test", "1993", "SSL", "%EMAILADDRESS%"),
    ("incomingServer", "imap", "mail.example.test", "143", "STARTTLS", "%EMAILADDRESS%"),
    ("outgoingServer", "smtp", "mail.example.test", "587", "STARTTLS", "%EMAILADDRESS%"),
]


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("autoconfig.example.test", f"{AUTOCONFIG}?emailaddress=anna%40example.test"),
        ("autoconfig.example.test", f"{AUTOCONFIG}?emailaddress=nobody@EXAMPLE.test"),
        ("autoconfig.example.test", AUTOCONFIG),
        ("example.test", f"/.well-known/autoconfig{AUTOCONFIG}"),
        ("autoconfig.example.org", f"{AUTOCONFIG}?emailaddress=anna@example.test"),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
def test_autoconfig(host: str, path: str, tls: bool) -> None:
    assert servers(get(path, host=host, tls=tls)) == EXPECTED


def test_the_servers_own_name_where_a_wildcard_covers_it() -> None:
    found = servers(get(f"{AUTOCONFIG}?emailaddress=a@example.org"))
    assert {server[2] for server in found} == {"server.example.net"}


@pytest.mark.parametrize("name", ["example.net", "mail.example.test", "example.com", "nowhere.test", "b\xfccher.test"])
def test_unknown_domains_and_such_without_a_host(name: str) -> None:
    from urllib.parse import quote

    for path in (AUTOCONFIG, "/profile.mobileconfig"):
        assert get(f"{path}?emailaddress=anna@{quote(name)}").status == 404
    assert post(REQUEST.format(address=f"anna@{name}", schema=OUTLOOK)).status == 404


@pytest.mark.parametrize(
    "address", ["anna", "@example.test", "a b@example.test", "a%00@example.test", "a" * 300 + "@example.test"]
)
def test_what_is_no_address(address: str) -> None:
    assert get(f"{AUTOCONFIG}?emailaddress={address.replace(' ', '%20')}").status == 400
    assert get(f"/profile.mobileconfig?emailaddress={address.replace(' ', '%20')}").status == 400


def test_loopback_alone_counts_where_there_is_nothing_else() -> None:
    config = config_of(
        HEAD + DOMAINS + b'[[listener]]\nprotocol = "imaps"\nport = 10993\naddresses = ["127.0.0.1", "::1"]\n'
    )
    assert servers(get(AUTOCONFIG, host="autoconfig.example.test", config=config)) == [
        ("incomingServer", "imap", "mail.example.test", "10993", "SSL", "%EMAILADDRESS%")
    ]


def post(body: str | bytes, path: str = "/autodiscover/autodiscover.xml", *, tls: bool = True) -> Answered:
    octets = body.encode() if isinstance(body, str) else body
    head = f"POST {path} HTTP/1.1\r\nHost: autodiscover.example.test\r\nContent-Type: text/xml\r\n"
    return World(tls=tls, config=CONFIG).ask(f"{head}Content-Length: {len(octets)}\r\n\r\n".encode() + octets)


@pytest.mark.parametrize(
    "path", ["/autodiscover/autodiscover.xml", "/Autodiscover/Autodiscover.xml", "/AutoDiscover/AutoDiscover.xml"]
)
def test_autodiscover(path: str) -> None:
    answered = post(REQUEST.format(address="anna+x@example.test", schema=OUTLOOK), path)
    assert answered.status == 200
    root = ET.fromstring(answered.body)
    response = "{http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006}"
    assert root.tag == f"{response}Autodiscover"
    told = [
        {part.tag.removeprefix(f"{{{OUTLOOK}}}"): part.text for part in protocol}
        for protocol in root.iter(f"{{{OUTLOOK}}}Protocol")
    ]
    common = {"Server": "mail.example.test", "LoginName": "anna+x@example.test", "SPA": "off", "SSL": "on",
              "DomainRequired": "off", "AuthRequired": "on"}  # fmt: skip
    assert told == [
        {"Type": "IMAP", "Port": "1993", "Encryption": "SSL", **common},
        {"Type": "SMTP", "Port": "587", "Encryption": "TLS", **common},
    ]


ENTITIES = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY e SYSTEM "file:///etc/passwd">]>
"""


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no XML",
        ENTITIES + REQUEST.partition("\n")[2].format(address="&e;@example.test", schema=OUTLOOK),
        "<a>" * 100,
        REQUEST.format(address="no address", schema=OUTLOOK),
        REQUEST.format(address="a" * 5000 + "@example.test", schema=OUTLOOK),
        "<Autodiscover/>",
        b"\xff\xfe\x00",
        *(
            f'<?xml version="1.0" encoding="{name}"?><Autodiscover/>'
            for name in ("hex", "rot13", "utf-7", "idna", "nobody")
        ),
    ],
)
def test_bad_requests_of_autodiscover_are_refused(body: str | bytes) -> None:
    answered = post(body)
    assert answered.status == 400
    assert b"<ErrorCode>600</ErrorCode>" in answered.body
    assert b"root:" not in answered.body


def test_another_form_of_the_answer_is_not_known() -> None:
    answered = post(REQUEST.format(address="anna@example.test", schema=OUTLOOK.replace("outlook", "mobilesync")))
    assert (answered.status, b"<ErrorCode>601</ErrorCode>" in answered.body) == (200, True)


def test_an_address_cannot_break_the_answer() -> None:
    answered = post(REQUEST.format(address="a&lt;/LoginName&gt;@example.test", schema=OUTLOOK))
    assert answered.status == 400


def test_a_profile_without_tls_leads_to_the_same_one() -> None:
    path = "/profile.mobileconfig?emailaddress=anna%2Bx%26y%40example.test"
    answered = get(path, host="mail.example.test", tls=False)
    assert (answered.status, answered.fields["location"]) == (302, f"https://mail.example.test{path}")


def test_autodiscover_without_tls_leads_to_it() -> None:
    answered = get("/autodiscover/autodiscover.xml", host="autodiscover.example.test", tls=False)
    assert answered.status == 302
    assert answered.fields["location"] == "https://autodiscover.example.test/autodiscover/autodiscover.xml"
    assert post(REQUEST.format(address="anna@example.test", schema=OUTLOOK), tls=False).status == 404


def test_a_profile_is_signed_and_has_no_password() -> None:
    answered = get("/profile.mobileconfig?emailaddress=anna@example.test")
    assert answered.status == 200
    assert answered.fields["content-type"] == "application/x-apple-aspen-config"
    host, _colon, octets = answered.body.partition(b":")
    assert host == b"mail.example.test"
    profile = plistlib.loads(octets)
    [account] = profile["PayloadContent"]
    assert account["PayloadType"] == "com.apple.mail.managed"
    assert (account["IncomingMailServerHostName"], account["IncomingMailServerPortNumber"]) == (
        "mail.example.test",
        1993,
    )
    assert (account["OutgoingMailServerPortNumber"], account["OutgoingMailServerUseSSL"]) == (587, True)
    assert account["IncomingMailServerUsername"] == account["EmailAddress"] == "anna@example.test"
    assert not [key for key in account if key in ("IncomingPassword", "OutgoingPassword")]
    assert account["PayloadUUID"] != profile["PayloadUUID"]
    again = get("/profile.mobileconfig?emailaddress=anna@example.test")
    assert again.body == answered.body, "it takes the place of the one before"
    other = get("/profile.mobileconfig?emailaddress=ben@example.test")
    assert plistlib.loads(other.body.partition(b":")[2])["PayloadUUID"] != profile["PayloadUUID"]


def test_a_domain_in_other_letters_is_told_in_those_that_mail_is_sent_with() -> None:
    told = post(REQUEST.format(address="anna&amp;co@B\u00fccher.example", schema=OUTLOOK))
    names = {each.text for each in ET.fromstring(told.body).iter(f"{{{OUTLOOK}}}LoginName")}
    assert names == {"anna&co@xn--bcher-kva.example"}
    answered = get("/profile.mobileconfig?emailaddress=anna%26co@b%C3%BCcher.example")
    [account] = plistlib.loads(answered.body.partition(b":")[2])["PayloadContent"]
    assert account["EmailAddress"] == account["OutgoingMailServerUsername"] == "anna&co@xn--bcher-kva.example"
    answered = get("/mail/config-v1.1.xml?emailaddress=anna%26co@b%C3%BCcher.example")
    assert ET.fromstring(answered.body).findtext("emailProvider/domain") == "xn--bcher-kva.example"


def test_the_policy_of_mta_sts() -> None:
    path = "/.well-known/mta-sts.txt"
    answered = get(path, host="mta-sts.example.test")
    assert answered.body == (
        b"version: STSv1\r\nmode: enforce\r\nmx: mx1.example.net\r\nmx: mx2.example.net\r\nmax_age: 86400\r\n"
    )
    assert answered.fields["content-type"] == "text/plain"
    for host in ("mail.example.test", "example.test", "mta-sts.example.org", "autoconfig.example.test"):
        assert get(path, host=host).status == 404
    assert get(path, host="mta-sts.example.test", tls=False).status == 302, "RFC 8461 3.3: over HTTPS alone"
