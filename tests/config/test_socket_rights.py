"""Who can connect to a Unix socket, in words and in warnings."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.config.load import load
from mailserver.config.model import Config
from mailserver.config.socket_rights import SocketRights, check_sockets
from tests.tls.site import Site

for_root = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root gives sockets away")
MAIL = pwd.getpwnam("mail")


def config_in(directory: Path, more: str, user: str = "root", protocol: str = "lmtp") -> Config:
    site = Site(directory).add("example.test", ["mail.example.test"])
    site.user = user
    path = site.write()
    with path.open("a") as file:
        file.write(f'[[listener]]\nprotocol = "{protocol}"\nsocket = "sockets/it"\n{more}\n')
    config, problems = load(path)
    assert config is not None, problems
    return config


def rights(config: Config) -> SocketRights:
    return SocketRights.of_listener(config.listeners[-1], config.server)


def warnings(config: Config) -> list[str]:
    return [problem.reason for problem in check_sockets(config)]


def test_in_words() -> None:
    assert str(SocketRights(0o660, 0, 0)) == "root and group root can connect"
    assert str(SocketRights(0o660, MAIL.pw_uid, MAIL.pw_gid)) == "root and user mail and group mail can connect"
    assert str(SocketRights(0o600, MAIL.pw_uid, 0)) == "root and user mail can connect"
    assert str(SocketRights(0o666, 0, 0)) == "every user of this machine can connect"
    assert str(SocketRights(0o440, 0, 0)) == "root can connect"


def test_it_is_the_services_by_itself(tmp_path: Path) -> None:
    config = config_in(tmp_path, "", user="mail")
    assert rights(config) == SocketRights(0o660, MAIL.pw_uid, MAIL.pw_gid)
    assert config.listeners[-1].trusted_authentication_results is False
    of_group = attrs.evolve(config.server, group="daemon")
    assert SocketRights.of_listener(config.listeners[-1], of_group).gid == grp.getgrnam("daemon").gr_gid


def test_mode_owner_and_group(tmp_path: Path) -> None:
    config = config_in(tmp_path, 'socket_mode = "640"\nsocket_owner = "nobody"\nsocket_group = "daemon"', user="mail")
    expected = SocketRights(0o640, pwd.getpwnam("nobody").pw_uid, grp.getgrnam("daemon").gr_gid)
    assert rights(config) == expected


@for_root
def test_a_transfer_agent_that_is_left_out_is_warned_of(tmp_path: Path) -> None:
    (reason,) = warnings(config_in(tmp_path, "", user="mail"))
    assert reason == (
        "lets only root and user mail connect: a transfer agent with another user is refused;"
        ' socket_group = "postfix" lets Postfix in'
    )
    assert warnings(config_in(tmp_path, 'socket_owner = "nobody"', user="mail")) == []
    assert warnings(config_in(tmp_path, 'socket_group = "nogroup"', user="mail")) == [], "nobody is a member"
    assert warnings(config_in(tmp_path, "", user="mail", protocol="http")) == []
    assert warnings(config_in(tmp_path, "")) == []


@for_root
def test_so_is_one_that_everybody_can_use(tmp_path: Path) -> None:
    (reason,) = warnings(config_in(tmp_path, 'socket_mode = "0666"'))
    assert reason.startswith(
        "lets every user of this machine deliver mail from any sender: give the socket to the group"
    )
    assert warnings(config_in(tmp_path, 'socket_mode = "0666"', protocol="http")) == []
    (reason,) = warnings(config_in(tmp_path, 'socket_mode = "0602"', protocol="auth"))
    assert reason.startswith(
        "lets every user of this machine guess passwords in the name of any address, and so delay or"
    )
    assert warnings(config_in(tmp_path, 'socket_owner = "daemon"\nsocket_mode = "0600"', protocol="auth")) == []
    (reason,) = warnings(config_in(tmp_path, 'socket_mode = "0666"', protocol="lookup"))
    assert reason.startswith(
        "lets every user of this machine learn which addresses exist here, and who gets their mail"
    )


def test_check_says_who_can_connect(tmp_path: Path) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    config = config_in(tmp_path, f'socket_mode = "0600"\nsocket_owner = "{name}"', user=name)
    text = config.source.read_text().replace("/etc/mailserver/users", "users")
    config.source.write_text(text)
    (tmp_path / "users").touch(0o600)
    (tmp_path / "sockets").mkdir()
    done = CliRunner().invoke(main, ["check", "--config", str(config.source)])
    assert done.exit_code == 0, done.output
    assert f"lmtp on {tmp_path}/sockets/it: root" in done.output
    assert "can connect (mode 0600)\n" in done.output
