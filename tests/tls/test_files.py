"""Where names lie that decide what a path leads to, and whether a file has changed."""

from __future__ import annotations

import os
from pathlib import Path

from mailserver.tls.keypair.files import directories, file_states


def test_the_directories_of_all_links_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/cert1.pem").write_text("1")
    (tmp_path / "live/x").mkdir(parents=True)
    (tmp_path / "live/x/cert.pem").symlink_to("../../archive/cert1.pem")
    assert directories(tmp_path / "live/x/cert.pem") == {f"{tmp_path}/live/x", f"{tmp_path}/archive"}


def test_a_linked_directory_and_an_absolute_link(tmp_path: Path) -> None:
    (tmp_path / "set1").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "set1")
    (tmp_path / "set1/cert.pem").write_text("1")
    assert directories(tmp_path / "current/cert.pem") == {str(tmp_path), f"{tmp_path}/set1"}


def test_a_file_that_is_not_there_and_a_circle_of_links_end(tmp_path: Path) -> None:
    assert directories(tmp_path / "gone/cert.pem") == {f"{tmp_path}/gone"}
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert directories(tmp_path / "a") == {str(tmp_path)}


def test_every_way_to_change_a_file_changes_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    seen = [file_states([path])]
    path.write_text("one")
    seen.append(file_states([path]))
    with path.open("r+") as file:
        file.write("two")
    os.utime(path, ns=(1, 1))
    seen.append(file_states([path]))
    other = tmp_path / "other"
    other.write_text("two")
    os.utime(other, ns=(1, 1))
    os.rename(other, path)
    seen.append(file_states([path]))
    link = tmp_path / "link"
    link.symlink_to(path)
    seen.append(file_states([path, link]))
    assert len(set(seen)) == len(seen)
    assert file_states([path]) == seen[3]
