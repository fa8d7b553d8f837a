"""Old names of renamed keys: accepted with a warning, refused beside the new ones."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.config import describe, model
from mailserver.config.load import load, parse
from mailserver.config.schema import all_tables, keys_of
from mailserver.config.show import show
from tests.config.test_load import SOUND, config_of, lines_of

LATER = "the old name works until the next release"


def renamed() -> Iterator[tuple[str, str, str]]:
    """Header of the table, old and new name of every renamed key."""
    for header, table in all_tables():
        for name, attribute in keys_of(table).items():
            if attribute.metadata.get("formerly"):
                yield header, attribute.metadata["formerly"], name


RENAMED = list(renamed())


def test_the_renamed_keys() -> None:
    assert RENAMED == [
        ("[[listener]]", "sniff_delay", "greeting_delay"),
        ("[cache]", "recent", "message_octets"),
    ]


@pytest.mark.parametrize(("header", "old", "new"), RENAMED)
def test_an_old_name_is_no_key_elsewhere(header: str, old: str, new: str) -> None:
    table = next(table for known, table in all_tables() if known == header)
    assert new in keys_of(table)
    assert old not in keys_of(table), "an old name must not be another key of its table"


def test_the_old_name_works_and_the_warning_names_the_new_one() -> None:
    octets = SOUND + b"[cache]\nrecent = 12345\n"
    assert lines_of(octets) == [f"[cache] recent: warning: is now called message_octets; {LATER}"]
    config = parse(octets, Path("/x.toml")).config
    assert config is not None
    assert config.cache.message_octets == 12345


def test_of_many_tables_each_is_named_by_its_number() -> None:
    octets = SOUND + b'[[listener]]\nprotocol = "submission"\nsniff_delay = 0.5\n'
    assert lines_of(octets) == [f"[listener 4] sniff_delay: warning: is now called greeting_delay; {LATER}"]
    config = parse(octets, Path("/x.toml")).config
    assert config is not None
    assert [listener.greeting_delay for listener in config.listeners] == [0.0, 0.0, 0.0, 0.5]


def test_a_file_with_old_names_can_be_served(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(SOUND + b"[cache]\nrecent = 12345\n")
    config, problems = load(tmp_path / "a.toml")
    assert config is not None
    assert [problem.warning for problem in problems] == [True]


def test_both_names_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(SOUND + b"[cache]\nrecent = 1\nmessage_octets = 2\n")
    config, problems = load(tmp_path / "a.toml")
    assert config is None
    (line,) = map(str, problems)
    assert line.endswith(
        "a.toml [cache] recent: is the old name of message_octets, which is set, too: remove one of the two"
    )


def test_a_wrong_value_under_an_old_name_is_reported_beside_the_warning() -> None:
    assert lines_of(SOUND + b"[cache]\nrecent = 0\n") == [
        f"[cache] recent: warning: is now called message_octets; {LATER}",
        "[cache] message_octets = 0: must be at least 1",
    ]


def test_tables_of_another_kind_are_left_to_the_loader() -> None:
    assert lines_of(SOUND.replace(b"[[listener]]", b"[listener.x]", 1) + b"[[cache]]\nrecent = 1\n")
    assert lines_of(b"listener = [1, 2]\ncache = 3\n")


def test_show_and_the_documents_have_the_new_names() -> None:
    config = config_of(SOUND)
    shown = tomllib.loads(show(config))
    assert "message_octets" in shown["cache"]
    assert "recent" not in shown["cache"]
    assert "sniff_delay" not in describe.example_file()
    assert "| `sniff_delay` |" not in describe.reference()
    assert "Until the next release the old name `sniff_delay` works, too." in describe.reference()


def test_old_names_are_no_attributes() -> None:
    assert not hasattr(model.Cache(), "recent")
