"""What the commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mailserver.cli import main


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a demonstration that does not run."""
    directory = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(main, ["demo", "--dir", str(directory), "--port-base", "21000"])
    assert done.exit_code == 0, done.output
    return directory / "mailserver.toml"
