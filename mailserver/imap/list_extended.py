"""The mailboxes that an extended LIST names, with their attributes (RFC 5258).

A name is listed if it matches a pattern and meets all selection criteria. Without criteria these are the mailboxes and
the levels above them. A level that no mailbox stands at is \\NonExistent, and so is a subscribed name without a mailbox.
With RECURSIVEMATCH a name is also listed for a descendant that meets the criteria and matches no pattern (3.3, 2B).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mailserver.imap.list_answers import ListLine
from mailserver.imap.list_request import RECURSIVE_MATCH, SPECIAL_USE, SUBSCRIBED, ListRequest
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.store.interfaces import MailboxInfo, MailboxList


class ExtendedList:
    """The names of an account for one request; `names` are those to be matched, and `line` is the answer for one."""

    def __init__(self, request: ListRequest, namespace: Namespace, listed: MailboxList, utf8: bool) -> None:
        """`utf8`: see Reader."""
        self._utf8 = utf8
        self._request = request
        self._separator = writer.quoted(namespace.separator.encode("ascii"))
        self._known: Mapping[str, MailboxInfo] = {namespace.to_client(info.name): info for info in listed.infos}
        self._parents = parents(self._known, namespace.separator)
        self._subscribed: Collection[str] = ()
        if SUBSCRIBED in dict(request.returned):
            self._subscribed = frozenset(map(namespace.to_client, listed.subscribed))
        self._namespace = namespace
        self._meeting: Collection[str] | None = None
        """Names that meet the selection criteria; None: there are none, and every name does."""
        if SUBSCRIBED in request.selection:
            self._meeting = frozenset(filter(self._has_use, self._subscribed))
        elif SPECIAL_USE in request.selection:
            self._meeting = frozenset(filter(self._has_use, self._known))
        self._above_meeting: Collection[str] = ()
        self._above_unmatched: Collection[str] = ()

    def _has_use(self, name: str) -> bool:
        if SPECIAL_USE not in self._request.selection:
            return True
        info = self._known.get(name)
        return info is not None and bool(info.special_use)

    @property
    def meeting(self) -> list[str]:
        """The names that meet the criteria: existing mailboxes in the order of the account, then the others."""
        if self._meeting is None:
            # The prefix of the namespace itself is a level that no mailbox stands at.
            return [*self._known, *sorted(self._parents.difference(self._known))]
        known = [name for name in self._known if name in self._meeting]
        return [*known, *sorted(set(self._meeting).difference(self._known))]

    @property
    def is_recursive(self) -> bool:
        """True if names are listed for their descendants, too."""
        return RECURSIVE_MATCH in self._request.selection

    def find_recursive(self, matched: Collection[str]) -> list[str]:
        """Return the further names to be matched, given those that meet the criteria and match."""
        assert self._meeting is not None
        separator = self._namespace.separator
        self._above_meeting = parents(self._meeting, separator)
        self._above_unmatched = parents(set(self._meeting).difference(matched), separator)
        return sorted(set(self._above_unmatched).difference(self._meeting))

    def line(self, name: str, *, meets: bool) -> ListLine:
        """Return the LIST response of a name that matches. `meets`: it meets the criteria by itself."""
        info = self._known.get(name)
        exists = info is not None and info.selectable
        attributes = [] if exists else ["\\NonExistent"]
        if name in self._subscribed:
            attributes.append("\\Subscribed")
        attributes.append("\\HasChildren" if name in self._parents else "\\HasNoChildren")
        if info is not None:
            attributes += sorted(info.special_use)
        # 3.5: of the options that may stand there by themselves only SUBSCRIBED is known.
        children = b' ("CHILDINFO" ("SUBSCRIBED"))' if name in self._above_meeting else b""
        text = b"* LIST (%b) %b %b%b\r\n" % (
            " ".join(attributes).encode("ascii"),
            self._separator,
            writer.mailbox(name, self._utf8),
            children,
        )
        return ListLine(text, info.name if info is not None and exists and meets else None)


def select_line(session: Session, name: str, listed: MailboxList) -> bytes:
    """Return the LIST response that SELECT sends for a mailbox of the store (RFC 9051 6.3.2); empty if there is none."""
    info = next((each for each in listed.infos if each.name == name), None)
    if info is None:
        return b""
    has_children = any(each.name.startswith(f"{name}/") for each in listed.infos)
    attributes = " ".join(["\\HasChildren" if has_children else "\\HasNoChildren", *sorted(info.special_use)])
    separator = writer.quoted(session.services.namespace.separator.encode("ascii"))
    return b"* LIST (%b) %b %b\r\n" % (attributes.encode("ascii"), separator, session.mailbox_octets(name))


def parents(names: Iterable[str], separator: str) -> set[str]:
    """All levels above the names."""
    found: set[str] = set()
    for name in names:
        at = name.rfind(separator)
        while at > 0 and name[:at] not in found:
            found.add(name[:at])
            at = name.rfind(separator, 0, at)
    return found
