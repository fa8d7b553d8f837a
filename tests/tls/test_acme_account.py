"""A change of the account's key: what is kept of it where the authority, or something between, hinders it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailserver.config.model import Config
from mailserver.tls import acme_account, acme_state
from mailserver.tls.acme_child import Child, NotObtained
from tests.tls.site import Site


@pytest.fixture
def config(tmp_path: Path) -> Config:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    site.managed.add("example.test")
    site.of_domain["example.test"] = ["acme = true"]
    site.more = '[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n'
    return site.config()


@pytest.mark.parametrize("decided", [True, False])
def test_a_refused_change_is_dropped_and_one_that_was_cut_short_goes_on_with_its_key(
    config: Config, monkeypatch: pytest.MonkeyPatch, *, decided: bool
) -> None:
    assert config.acme is not None
    place = (config.server.state_dir, config.acme.directory)
    before = acme_state.account_key(*place)
    offered: list[str] = []
    outcomes: list[Exception | dict[str, Any]] = [NotObtained("not now", decided=decided), {}]

    def ask(_child: Child, do: str, job: dict[str, Any], **_more: object) -> dict[str, Any]:
        assert do == "roll-over"
        offered.append(job["next"])
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(Child, "ask", ask)
    with pytest.raises(NotObtained):
        acme_account.roll_over(config)
    assert acme_state.account_key(*place) == before
    assert acme_state.is_changing(*place) == (not decided)
    assert acme_account.finish_roll_over(config) == (not decided)
    if not decided:
        assert offered[0] == offered[1], "the authority may have taken it already"
        assert acme_state.account_key(*place).reveal().decode() == offered[0]
