"""Identifiers of content in the names of files (RFC 8474)."""

from __future__ import annotations

import os

from mailserver.store.maildir.format.email_id import email_id
from mailserver.store.maildir.format.filename import MaildirName, is_own, new_base
from mailserver.store.name_sizes import claimed_size


def test_a_copy_carries_the_identifier_of_its_source() -> None:
    first = new_base("host", size=10, virtual_size=10)
    kept = email_id(first.encode())
    second = new_base("host", email_id=kept, size=10, virtual_size=10)
    third = new_base("host", email_id=email_id(second.encode()))
    assert email_id(second.encode()) == email_id(third.encode()) == kept
    assert is_own(second)
    assert claimed_size(second.encode()) == 10
    assert MaildirName.parse(second + ":2,S").size == 10


def test_names_of_other_programs_are_not_believed() -> None:
    claim = ",E=" + "0" * 24
    foreign = f"1276528487.M364837P9451.host{claim},S=1355,W=1394".encode()
    assert email_id(foreign) != "0" * 24
    own = new_base("host").encode()
    assert email_id(own + b",E=000") != "0" * 24
    assert email_id(own + claim.encode() + b"0") != "0" * 24
    assert email_id(own + claim.encode()) == "0" * 24
    assert email_id(os.fsencode("\udcff.name")) == email_id(b"\xff.name")
