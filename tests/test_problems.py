"""Problems of what a configuration names: the same at the start and at a reload."""

from __future__ import annotations

from pathlib import Path

from mailserver.problems import find_problems
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.wiring.reload_check import check_reload
from tests.tls.site import Site, quiet

WRONG = {
    "[auth] backends": ('"file:/etc/mailserver/users"', '"nobody:x"'),
    "[pop3] uidl_format": ("[tls]", '[pop3]\nuidl_format = "%u%u%u%u%u%u%u%u"\n[tls]'),
    "[mail] root": ('/mail"', '/in-the-way"'),
}


def test_each_check_runs_at_the_start_and_at_a_reload(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    running = site.config()
    policy = TlsPolicy(running, quiet)
    text = running.source.read_text()
    for old, new in WRONG.values():
        text = text.replace(old, new)
    running.source.write_text(text)
    config, problems = find_problems(running.source)
    assert config is None
    at_start = {str(problem) for problem in problems if not problem.warning}
    assert len(at_start) == len(WRONG)
    assert all(any(place in line for line in at_start) for place in WRONG)
    checked = check_reload(running, policy)
    assert checked.prepared is None
    assert at_start <= set(checked.lines)


def test_the_old_name_of_a_key_is_reported_at_the_start_and_at_a_reload(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    running = site.config()
    running.source.write_text(f"{running.source.read_text()}\n[cache]\nrecent = 1234567\n")
    warning = f"{running.source} [cache] recent: warning: is now called message_octets; the old name works until the next release"
    _config, problems = find_problems(running.source, starting=True)
    assert warning in map(str, problems)
    assert warning in check_reload(running, TlsPolicy(running, quiet)).lines
