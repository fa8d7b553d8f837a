"""Keywords beyond the letters on disk: the names of files and the index, with other versions and programs in between."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import LimitReached
from mailserver.store.columns import Columns
from mailserver.store.flags import LETTERS, NARROW, SEEN, FlagChange
from mailserver.store.further_flags import further_mask, further_part, narrowed, widened, without_further
from mailserver.store.maildir.format import keywords
from mailserver.store.maildir.format.filename import LONGEST_NAME, MaildirName, new_base
from tests.store.maildirs import append, deliver, files, name_of, open_account, uids
from tests.store.samples import assert_equal, flags

WORDS = [f"word{number}" for number in range(40)]
MASK = st.integers(0, 2**505 - 1)


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


@pytest.fixture
def inbox(account):
    """An INBOX with three messages."""
    for _ in range(3):
        append(account)
    return account.mailbox("INBOX")


def drop_index(account):
    account.close()
    for end in ("", "-wal", "-shm"):
        path = os.path.join(account.root, "mailserver-index.sqlite" + end)
        if os.path.exists(path):
            os.unlink(path)


def again(account):
    """The mailbox as after a change that this process did not see."""
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    return mailbox


def test_the_form_in_a_name():
    assert further_part(1 << 31) == ",K=B"
    assert further_part(1 << 31 + 6 | 1 << 31 + 17) == ",K=ABg"
    assert further_part(NARROW) == ""
    assert further_mask("K=ABg") == 1 << 31 + 6 | 1 << 31 + 17
    assert further_mask("x,K=B,K=C") == 3 << 31
    assert without_further("x,K=B,,S=1") == ",x,,S=1"
    assert MaildirName.parse("m:2,PSb,K=B,x=1").with_mask(1 << 32).format() == "m:2,P,K=C,x=1"
    assert MaildirName.parse("m:2,,K=B").with_mask(SEEN).format() == "m:2,S"


@pytest.mark.parametrize("part", ["K", "K=", "k=B", "K=+", "K=B!", "K=" + "A" * 80, "XK=B", "K=B:", "K=é"])
def test_parts_of_other_programs_are_no_keywords(part):
    assert further_mask(part) == 0
    assert without_further(part) == "," + part
    assert MaildirName.parse(f"m:2,S,{part}").with_mask(0).format() == f"m:2,,{part}"


def test_bits_beyond_the_last_keyword_are_ignored():
    assert further_mask("K=" + "A" * 78 + "_") == 0b111111 << 31 + 6 * 78 & (1 << 505) - 1


@given(MASK)
def test_a_mask_survives_a_name_and_the_index(mask):
    suffix = MaildirName.parse("m:2,PX,a=1").with_mask(mask).format()[1:]
    assert MaildirName.parse("m" + suffix).mask == mask
    assert len(suffix) < 130
    flags = narrowed(mask)
    assert flags < 2**32
    assert widened(flags, suffix.encode()) == mask


@given(st.text("K=AB_,x\xff", max_size=30), MASK)
def test_any_parts_behind_the_letters_are_read_again(rest, mask):
    changed = MaildirName.parse("m:2,S," + rest).with_mask(mask)
    assert changed.mask == mask
    assert changed.with_mask(0).mask == 0
    assert without_further(changed.format().split(",", 2)[2] if "," in changed.format()[4:] else "") in {
        without_further(rest), ",",
    }  # fmt: skip


@pytest.mark.parametrize("count", [3, 70, 600])
def test_they_survive_the_loss_of_the_index(account, inbox, tmp_path, count):
    """In rows, in packed columns, and in blocks."""
    for number in range(count - 3):
        deliver(account, f"17{number:08}.M1P1.other")
    inbox.refresh()
    everything = uids(inbox)
    inbox.store_flags(everything, FlagChange.ADD, WORDS)
    inbox.store_flags(everything[1:2], FlagChange.REMOVE, ["word33", "word1"])
    inbox.store_flags(everything[2:3], FlagChange.REPLACE, ["word0"])
    before = flags(inbox)
    assert before[1] == set(WORDS)
    drop_index(account)
    mailbox = again(account)
    assert flags(mailbox) == before
    columns = Columns(mailbox.load())
    mailbox.store_flags(everything[:2], FlagChange.REMOVE, ["word30"])
    columns.apply(mailbox.changes_since(columns.modseq))
    assert_equal(columns, mailbox)
    assert flags(mailbox)[everything[1]] == set(WORDS) - {"word33", "word1", "word30"}
    assert flags(mailbox)[everything[2]] == {"word0"}
    assert flags(open_account(tmp_path).mailbox("INBOX")) == flags(mailbox)


def test_names_that_other_programs_change_keep_them(account, inbox):
    inbox.store_flags([1, 2], FlagChange.ADD, WORDS)
    since = inbox.load().modseq
    old = name_of(account, 1)
    os.rename(os.path.join(account.root, "cur", old), os.path.join(account.root, "cur", old.replace(":2,", ":2,F")))
    mailbox = again(account)
    assert flags(mailbox)[1] == {*WORDS, "\\Flagged"}
    assert [row.uid for row in mailbox.changes_since(since).rows] == [1]
    # A name with keywords that this mailbox does not have: another program has moved the file.
    deliver(account, "1700000001.M1P1.other:2,S,K=________", place="cur")
    assert flags(again(account))[4] == {*WORDS[LETTERS:], "\\Seen"}


def test_a_mailbox_without_them_has_no_file_and_no_part_in_names(account, inbox):
    inbox.store_flags([1, 2, 3], FlagChange.ADD, WORDS[:LETTERS])
    assert not os.path.exists(os.path.join(account.root, "mailserver-keywords"))
    assert not any(",K=" in name for name in files(account))
    inbox.store_flags([1], FlagChange.ADD, WORDS)
    inbox.store_flags([1], FlagChange.REMOVE, WORDS[LETTERS:])
    assert not any(",K=" in name for name in files(account))


def older_version(account):
    """Do to the index what a version does that ignores further keywords: it reads the letters alone, and scans anew."""
    account.close()
    mailbox = account.mailbox("INBOX")
    connection = account._home.index()._connection
    letters = os.path.join(account.root, "dovecot-keywords")
    connection.execute(
        "UPDATE mailboxes SET keywords = ?, keywords_signature = ?, new_racy = 0, cur_racy = 0",
        (
            "\n".join(keywords.read(letters).names),
            " ".join(map(str, keywords.signature(letters, letters + ".none"))),
        ),
    )
    connection.execute(f"UPDATE messages SET flags = flags & {NARROW}")
    connection.execute("DELETE FROM packed_columns")
    account.close()
    return mailbox


def test_they_come_back_after_a_turn_of_an_older_version(account, inbox):
    inbox.store_flags([1, 2], FlagChange.ADD, WORDS)
    since = inbox.load().modseq
    older_version(account)
    mailbox = again(account)
    assert flags(mailbox) == {1: set(WORDS), 2: set(WORDS), 3: set()}
    assert [row.uid for row in mailbox.changes_since(since).rows] == [1, 2]
    mailbox.store_flags([1], FlagChange.REPLACE, ["word39"])
    assert flags(mailbox)[1] == {"word39"}


def test_blocks_of_an_older_version_get_them_too(account, inbox):
    inbox.store_flags([1, 2], FlagChange.ADD, WORDS)
    drop_index(account)
    again(account)
    index = account._home.index()
    [block] = index.messages._blocks.of(1)
    narrow = block._replace(flags=type(block.flags)("I", [mask & NARROW for mask in block.flags]))
    index._connection.execute("DELETE FROM bundles")
    index.messages._blocks.add(1, [narrow])
    older_version(account)
    assert flags(again(account)) == {1: set(WORDS), 2: set(WORDS), 3: set()}


def test_a_name_that_would_be_too_long_is_refused_before_anything_changes(account, inbox):
    long = "1700000001.M1P1." + "h" * (LONGEST_NAME - 80)
    deliver(account, long)
    mailbox = again(account)
    many = [f"k{number}" for number in range(500)]
    before = files(account)
    for how in (FlagChange.ADD, FlagChange.REPLACE):
        with pytest.raises(LimitReached, match="the message has too many"):
            mailbox.store_flags([1, 4], how, many)
    assert files(account) == before
    mailbox.store_flags([1, 4], FlagChange.ADD, ["k1", "k30"])
    assert flags(again(account)) == {1: {"k1", "k30"}, 2: set(), 3: set(), 4: {"k1", "k30"}}


def test_names_of_this_server_hold_all_keywords():
    base = new_base("mail.department.example.com", email_id="0" * 32, size=10**9, virtual_size=10**9)
    assert len(MaildirName(base, None).with_mask((1 << 505) - 1).format()) <= LONGEST_NAME


def test_a_keyword_that_only_a_file_has_is_not_freed(account, inbox):
    """A STORE that was interrupted has changed names without the index."""
    inbox.store_flags([1], FlagChange.ADD, [f"k{number}" for number in range(500)])
    inbox.store_flags([1], FlagChange.REPLACE, ["k30"])
    with open(os.path.join(account.root, "cur", "1700000001.M1P1.other:2,,K=C"), "wb"):
        pass
    inbox.store_flags([2], FlagChange.ADD, ["new"])
    kept = {name for name in inbox.load().keywords if name}
    assert kept == {*(f"k{number}" for number in range(LETTERS)), "k27", "k30", "new"}
