"""Two sites that most tests are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import ORG, TEST, Lines, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path).add("example.test", list(TEST)).add("example.org", list(ORG))


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def policy(site: Site, log: Lines) -> TlsPolicy:
    return TlsPolicy(site.config(), log)
