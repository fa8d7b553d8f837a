"""Who else could change what a path leads to."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.config.strict_modes import Trust, trust, unsafe

ME = os.geteuid()
OTHER = pwd.getpwnam("nobody").pw_uid
for_root = pytest.mark.skipif(ME != 0 and not os.environ.get("CI"), reason="only root gives files away")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made).resolve() / "a" / "b"
        path.mkdir(parents=True)
        (path / "file").touch(0o600)
        yield path


TRUSTED = Trust(frozenset({0, ME}), frozenset({0}))


def test_what_is_ones_own_is_safe_also_below_a_sticky_directory(place: Path) -> None:
    assert unsafe(place / "file", TRUSTED) == ""
    place.chmod(0o1777)
    assert unsafe(place / "file", TRUSTED) == ""
    assert unsafe(place / "absent" / "deeper", TRUSTED) == ""


@pytest.mark.parametrize("step", [".", "..", "file"])
def test_what_every_user_can_write_is_not(place: Path, step: str) -> None:
    path = (place / step).resolve()
    path.chmod(0o777)
    assert unsafe(place / "file", TRUSTED) == f"{path} can be written by every user: chmod o-w"
    assert unsafe(place / "file", Trust(frozenset({0, ME}), everybody=True)) == ""


@for_root
@pytest.mark.parametrize("step", [".", "..", "file"])
def test_what_belongs_to_somebody_else_is_not(place: Path, step: str) -> None:
    path = (place / step).resolve()
    os.chown(path, OTHER, 0)
    assert unsafe(place / "file", TRUSTED) == f"{path} belongs to user nobody"
    assert unsafe(place / "file", TRUSTED.with_user(OTHER)) == ""


@for_root
def test_what_a_group_can_write_is_not(place: Path) -> None:
    os.chown(place, 0, pwd.getpwnam("nobody").pw_gid)
    place.chmod(0o775)
    assert unsafe(place / "file", TRUSTED) == f"{place} can be written by group nogroup: chmod g-w"
    os.chown(place, 0, 0)
    assert unsafe(place / "file", TRUSTED) == ""


def test_what_a_link_leads_to_is_judged(place: Path) -> None:
    link = place / "link"
    link.symlink_to("../c/./file")
    (place.parent / "c").mkdir()
    (place.parent / "c" / "file").touch()
    assert unsafe(link, TRUSTED) == ""
    (place.parent / "c").chmod(0o777)
    assert unsafe(link, TRUSTED) == f"{place.parent}/c can be written by every user: chmod o-w"
    link.unlink()
    link.symlink_to(link)
    assert unsafe(link, TRUSTED) == "", "whoever opens it is told"


@for_root
def test_a_link_of_somebody_else_in_a_sticky_directory_is_not_safe(place: Path) -> None:
    place.chmod(0o1777)
    link = place / "link"
    link.symlink_to(place / "file")
    os.chown(link, OTHER, 0, follow_symlinks=False)
    assert unsafe(link, TRUSTED) == f"{link} belongs to user nobody"
    place.chmod(0o755)
    assert unsafe(link, TRUSTED) == "", "its owner cannot replace it there"


def test_this_program_and_whoever_may_change_it_are_trusted() -> None:
    assert {0, ME, Path(__file__).stat().st_uid} <= trust().users
    assert unsafe(Path(__file__).parent.parent.parent / "mailserver" / "tap.py", trust()) == ""
