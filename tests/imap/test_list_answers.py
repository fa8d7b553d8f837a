"""Answers to LIST and LSUB that are kept."""

from __future__ import annotations

import gc
import os
import time
from weakref import ref

import pytest

from mailserver.imap.list_answers import LARGEST, MOST, ListAnswers
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.home.folders import Layout
from tests.fakes import DirectRunner
from tests.imap.sessions import logged_in, services

LISTS = [b'LIST "" "*"', b'LIST "" "%"', b'LSUB "" "*"', b'LIST (SPECIAL-USE) "" "*"', b'LIST "" "a/*"', b'LSUB "" "%"']


class List:
    """Stands for a MailboxList."""


@pytest.fixture
def store(tmp_path):
    return MaildirStore(tmp_path, summarise, hostname="host.example.test")


def ask(client, command):
    client.send(b"x " + command + b"\r\n")
    answer = client.take()
    assert b"x OK" in answer
    return answer


def age(path):
    past = time.time_ns() - 60 * 10**9
    for name in (path / "subscriptions", path / "mailserver-special-use", path):
        os.utime(name, ns=(past, past))


def test_the_same_question_about_an_unchanged_account_has_the_same_answer_without_a_hop(store, tmp_path, monkeypatch):
    service = services(store=store)
    client = logged_in(service)
    for command in (b"CREATE a/b/c", b"SUBSCRIBE a/b/c", b"DELETE a/b/c"):
        ask(client, command)
    first = [ask(client, command) for command in LISTS]
    assert first == [ask(logged_in(services(store=store)), command) for command in LISTS], "each as nothing is kept"
    age(tmp_path / "example.test" / "anna" / "Maildir")
    assert [ask(client, command) for command in LISTS] == first
    monkeypatch.setattr(DirectRunner, "run", lambda _self, _operation: pytest.fail("a hop"))
    monkeypatch.setattr(Layout, "directories", lambda _self, _known: pytest.fail("it was read"))
    assert [ask(client, command) for command in LISTS * 2] == first * 2


def test_changes_show_at_once(store, tmp_path):
    service = services(store=store)
    client, other = logged_in(service), logged_in(service)
    for command in LISTS:
        ask(client, command)
    age(tmp_path / "example.test" / "anna" / "Maildir")
    for command in LISTS:
        ask(client, command)
    ask(other, b"CREATE fresh")
    assert b"fresh" in ask(client, LISTS[0])
    ask(other, b"SUBSCRIBE fresh")
    assert b"fresh" in ask(client, LISTS[2])
    ask(other, b"DELETE fresh")
    assert b"fresh" not in ask(client, LISTS[0])
    assert b"fresh" in ask(client, LISTS[2])


def test_few_answers_of_a_list_are_kept_and_none_that_is_large():
    answers, listed = ListAnswers(), List()
    for number in range(MOST + 2):
        answers.keep(listed, number, b"%d" % number, 1)
    answers.keep(listed, "large", b"", LARGEST + 1)
    kept = [number for number in [*range(MOST + 2), "large"] if answers.get(listed, number) is not None]
    assert kept == list(range(2, MOST + 2))


def test_answers_go_with_their_list():
    answers, listed = ListAnswers(), List()
    answers.keep(listed, "question", b"answer", 6)
    gone = ref(listed)
    del listed
    gc.collect()
    assert gone() is None
    assert not answers._answers
