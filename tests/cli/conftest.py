"""What the commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server import make_demonstration


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a demonstration that does not run."""
    directory = tmp_path_factory.mktemp("demo")
    make_demonstration(directory, 21000, in_directory=True)
    return directory / "mailserver.toml"
