"""What a user installs: the wheel in an empty environment gives twistd its command, and the administrator's."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    files = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "mailserver", "twisted"]
    source.mkdir()
    run("cp", "-r", *files, str(source), cwd=ROOT)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), cwd=source)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_plugins_and_no_package_of_twisteds_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted/plugins/mailserver_plugin.py" in names
    assert "twisted/plugins/mailserver_auth.py" in names
    assert "mailserver/py.typed" in names
    assert not [name for name in names if name.startswith("twisted/") and name.endswith("__init__.py")]
    assert not [name for name in names if name.startswith("tests/")]


def pins(path: Path) -> dict[str, str]:
    """Name -> version of a file, by the names that all spellings of one have in common."""
    found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^ ;\n]+)", path.read_text())
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("name", ["server", "develop", "bench"])
def test_what_is_installed_is_known_by_its_hashes(name: str) -> None:
    """`.ci/pin` makes these files."""
    path = ROOT / "requirements" / f"{name}.txt"
    constraints, found = pins(ROOT / "constraints.txt"), pins(path)
    assert {each: constraints.get(each) for each in found} == found
    entries = re.split(r"(?m)^(?=\S)", path.read_text())[1:]
    assert len(entries) == len(found)
    assert all(re.search(r"\n    --hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)
    wanted = run(sys.executable, ".ci/requirements.py", name, cwd=ROOT).split()
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=]", each)[0]).lower() for each in wanted}
    assert names <= set(found)


@pytest.mark.slow
def test_installed_in_an_empty_environment_it_gives_both_commands(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env"), cwd=tmp_path)
    commands = tmp_path / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python")]
    constraints = str(ROOT / "constraints.txt")
    run(*pip, "install", "-q", "--no-compile", "-c", constraints, str(wheel), cwd=tmp_path)
    listed = run(str(commands / "twistd"), "--help", cwd=tmp_path)
    assert any(line.split()[:1] == ["mailserver"] for line in listed.splitlines()), listed
    assert "--config" in run(str(commands / "twistd"), "mailserver", "--help", cwd=tmp_path)
    assert "user" in run(str(commands / "mailserver"), "--help", cwd=tmp_path)
    told = run(str(commands / "mailserver"), "--version", cwd=tmp_path)
    assert run(*pip, "show", "mailserver", cwd=tmp_path).splitlines()[1] == f"Version: {told.split()[1]}"
    assert run(str(commands / "twistd"), "mailserver", "--version", cwd=tmp_path) == told


def test_the_unit_keeps_memory_and_other_processes_to_themselves() -> None:
    lines = (ROOT / "etc" / "mailserver.service").read_text().splitlines()
    assert {"LimitCORE=0", "ProtectProc=invisible", "NoNewPrivileges=yes"} <= set(lines)
    # The store knows one start of the machine from another by a file there.
    assert not any(line.startswith("ProcSubset=") for line in lines)
