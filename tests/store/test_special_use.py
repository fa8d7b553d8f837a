"""Which mailbox has which special use: of new accounts, of adopted ones, and when Dovecot has had the account meanwhile."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailserver import modified_utf7
from mailserver.errors import NoSuchMailbox
from mailserver.message.render import summarise
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.format.common_names import COMMON_NAMES
from mailserver.store.maildir.home import special_use
from mailserver.store.maildir.home.home import INDEX_NAME
from tests.dovecot import away, need

USER = "anna@example.test"


def adopted(root: Path, folders: Sequence[str], **settings: Sequence[str] | str) -> MaildirAccount:
    """The account of a Maildir that another server filled; `settings` are names by use."""
    at = root / "example.test" / "anna" / "Maildir"
    for name in ("", *("." + ".".join(map(modified_utf7.encode, folder.split("/"))) for folder in folders)):
        for part in ("cur", "new", "tmp"):
            os.makedirs(at / name / part, exist_ok=True)
    return MaildirStore(root, summarise, special_use=settings).account(USER)


def uses(account: MaildirAccount) -> dict[str, str]:
    """Mailbox by use."""
    found = {use: info.name for info in account.mailboxes() for use in info.special_use}
    assert {use: holder.name for use, holder in account.special_uses().items()} == found
    return {use.removeprefix("\\"): name for use, name in sorted(found.items())}


@pytest.mark.parametrize(
    ("drafts", "sent", "junk", "trash", "archive"),
    [
        ("Drafts", "Sent Items", "Junk E-mail", "Deleted Items", "Archive"),
        ("Entwürfe", "Gesendete Elemente", "Spamverdacht", "Papierkorb", "Archiv"),
        ("Brouillons", "Éléments envoyés", "Courrier indésirable", "Corbeille", "Archives"),
        ("Borradores", "Elementos enviados", "Correo no deseado", "Papelera", "Archivo"),
        ("Bozze", "Posta inviata", "Posta indesiderata", "Cestino", "Archivio"),
        ("Rascunhos", "Itens Enviados", "Lixo Eletrônico", "Lixeira", "Arquivo Morto"),
        ("Concepten", "Verzonden items", "Ongewenste e-mail", "Prullenbak", "Archief"),
        ("Kopie robocze", "Elementy wysłane", "Niechciane", "Kosz", "Archiwum"),
        ("Черновики", "Отправленные", "Спам", "Корзина", "Архив"),
        ("Utkast", "Skickat", "Skräppost", "Papperskorgen", "Arkiv"),
        ("Koncepty", "Odeslaná pošta", "Nevyžádaná pošta", "Koš", "Archiv"),
        ("下書き", "送信済みアイテム", "迷惑メール", "ゴミ箱", "アーカイブ"),
    ],
)
def test_names_of_many_languages(tmp_path: Path, drafts: str, sent: str, junk: str, trash: str, archive: str) -> None:
    account = adopted(tmp_path, [drafts, sent, junk, trash, archive, "Other"])
    assert uses(account) == {"Archive": archive, "Drafts": drafts, "Junk": junk, "Sent": sent, "Trash": trash}


def test_no_common_name_stands_under_two_uses() -> None:
    told = [unicodedata.normalize("NFC", name).casefold() for table in COMMON_NAMES.values() for name in table]
    assert sorted(set(told)) == sorted(told)


@pytest.mark.parametrize(
    ("folders", "settings", "expected"),
    [
        (["Gesendet", "Sent"], {"Sent": "Gesendet"}, "Gesendet"),
        (["Gesendet", "Sent"], {"Sent": ("Ausgang", "Gesendet")}, "Gesendet"),
        (["Gesendet", "Sent"], {"Sent": ("Ausgang",)}, "Sent"),
        (["gesendet"], {"Sent": "Gesendet"}, "gesendet"),
        (["Gesendet", "gesendet"], {"Sent": "gesendet"}, "gesendet"),
        (["INBOX/Gesendet"], {}, "INBOX/Gesendet"),
        (["[Gmail]/Sent Mail"], {}, "[Gmail]/Sent Mail"),
        ([unicodedata.normalize("NFD", "Éléments envoyés")], {}, unicodedata.normalize("NFD", "Éléments envoyés")),
        (["Mail/Weg"], {"Sent": "Mail/Weg"}, "Mail/Weg"),
        # What is configured for one use is not taken by another's usual name.
        (["Sent", "Sent Items"], {"Archive": "Sent"}, "Sent Items"),
        (["Sent", "Sent Items"], {"Archive": "SENT"}, "Sent Items"),
    ],
)
def test_what_counts_before_what(
    tmp_path: Path, folders: list[str], settings: dict[str, Sequence[str] | str], expected: str
) -> None:
    assert uses(adopted(tmp_path, folders, **settings))["Sent"] == expected


def test_a_use_that_was_given_counts_first_and_belongs_to_one_mailbox(tmp_path: Path) -> None:
    account = adopted(tmp_path, ["Sent", "Gesendet", "Weg"], Sent="Gesendet")
    account.give_special_use("\\Sent", "Weg")
    assert uses(account)["Sent"] == "Weg"
    account.give_special_use("\\Trash", "Weg")
    account.give_special_use("\\Sent", "Sent")
    assert uses(account) == {"Sent": "Sent", "Trash": "Weg"}
    account.create("New", frozenset({"\\Sent"}))
    assert uses(account) == {"Sent": "New", "Trash": "Weg"}
    account.give_special_use("\\Sent", None)
    assert uses(account) == {"Sent": "Gesendet", "Trash": "Weg"}
    with pytest.raises(NoSuchMailbox):
        account.give_special_use("\\Sent", "Nowhere")


def test_of_two_that_an_older_version_gave_a_use_the_last_has_it(tmp_path: Path) -> None:
    account = adopted(tmp_path, ["One", "Two"])
    given = {account.mailbox(name).id: {"\\Sent"} for name in ("Two", "One")}
    special_use.write(account.root, given)
    assert uses(account)["Sent"] == "One"
    account.delete("One")
    assert uses(account)["Sent"] == "Two"


def test_a_new_account_gets_the_first_of_the_names(tmp_path: Path) -> None:
    store = MaildirStore(tmp_path, summarise, special_use={"Sent": ("Gesendet", "Sent"), "Trash": "Weg"})
    account = store.account(USER)
    assert [info.name for info in account.mailboxes()] == ["INBOX", "Gesendet", "Weg"]
    assert uses(account) == {"Sent": "Gesendet", "Trash": "Weg"}
    # A configuration that changes later does not move what a user has.
    later = MaildirStore(tmp_path, summarise, special_use={"Sent": "Sent"}).account(USER)
    later.create("Sent")
    assert uses(later)["Sent"] == "Gesendet"


@pytest.mark.interop
def test_it_outlasts_the_index_and_a_time_under_dovecot() -> None:
    need()
    with away({USER: "secret"}) as dovecot:
        account = adopted(dovecot.root, ["Sent", "Weg"])
        account.give_special_use("\\Sent", "Weg")
        account.give_special_use("\\Trash", "Sent")
        account.close()
        dovecot.own(dovecot.root)
        with dovecot:
            dovecot.doveadm("mailbox", "rename", "-u", USER, "Weg", "Elsewhere/Gone")
            dovecot.doveadm("mailbox", "create", "-u", USER, "Weg")
            assert b"Elsewhere/Gone" in dovecot.doveadm("mailbox", "list", "-u", USER)
        for name in os.listdir(account.root):
            if name.startswith(INDEX_NAME):
                os.unlink(os.path.join(account.root, name))
        again = MaildirStore(dovecot.root, summarise, special_use={}).account(USER)
        assert uses(again) == {"Sent": "Elsewhere/Gone", "Trash": "Sent"}


def test_what_was_given_before_the_index_was_lost_stays_when_more_is_given(tmp_path: Path) -> None:
    account = adopted(tmp_path, ["One", "Two", "Three"])
    account.give_special_use("\\Sent", "One")
    account.give_special_use("\\Trash", "Two")
    account.close()
    for path in (tmp_path / "example.test" / "anna" / "Maildir").glob(f"{INDEX_NAME}*"):
        path.unlink()
    account = MaildirStore(tmp_path, summarise).account(USER)
    account.give_special_use("\\Junk", "Three")
    assert uses(account) == {"Junk": "Three", "Sent": "One", "Trash": "Two"}
