"""What is wrong with what a configuration names is found alike at the start and at a reload."""

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


def test_each_judge_is_asked(tmp_path: Path) -> None:
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
