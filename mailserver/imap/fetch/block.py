"""FETCH responses of many messages at once: one format string for all, filled from columns and summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

from attrs import frozen

from mailserver.imap.fetch.budget import COPIED, EACH, Budget, BudgetExceeded
from mailserver.imap.fetch.message import kept_literal, literals
from mailserver.imap.fetch.plan import FetchPlan, Item, Need, Rows
from mailserver.imap.wire import writer
from mailserver.message.summary import Summary

_SCANNED: Final = 8
"""Octets of kept lines that a pattern scans for the cost of one; see `Budget`."""


@frozen
class Block:
    """Messages whose sizes and dates are known, if they are asked for."""

    plan: FetchPlan
    rows: Rows
    flags: Sequence[bytes]
    """The flag list of each."""

    def format(self, texts: Mapping[bytes, Sequence[bytes]]) -> bytes:
        """The responses; `texts` has the values that are no columns, by label, of each message."""
        columns: list[Sequence[object]] = [self.rows.seqs]
        columns += [self._column(item) if item.need is Need.COLUMN else texts[item.label] for item in self.plan.items]
        return self.plan.line * len(self.rows.uids) % tuple(chain.from_iterable(zip(*columns, strict=True)))

    def format_summaries(self, summaries: Sequence[Summary], budget: Budget) -> tuple[bytes, int]:
        """The responses for as many of the messages as the budget allows, and their number. Raises: BudgetExceeded."""
        texts = self._texts(summaries)
        count = self._affordable(summaries, texts.values(), budget)
        block: Block = self
        if count < len(summaries):
            block = Block(self.plan, self.rows.part(0, count), self.flags[:count])
            texts = {label: column[:count] for label, column in texts.items()}
        for item in self.plan.items:
            if item.section is not None:
                texts[item.label] = [kept_literal(item, summary) for summary in summaries[:count]]
        return block.format(texts), count

    def format_lines(self, lines: Sequence[bytes]) -> bytes:
        """The responses of a plan that needs kept lines alone; `lines` are those of each message."""
        columns: list[Sequence[object]] = [self.rows.seqs]
        for item in self.plan.items:
            if item.section is None:
                columns.append(self._column(item))
            else:
                values = literals(item.section, lines)
                columns += list(map(len, values)), values
        return self.plan.literal_line * len(self.rows.uids) % tuple(chain.from_iterable(zip(*columns, strict=True)))

    def _texts(self, summaries: Sequence[Summary]) -> dict[bytes, list[bytes]]:
        """The values that stand in the summaries."""
        texts: dict[bytes, list[bytes]] = {}
        for item in self.plan.items:
            match item.label:
                case b"ENVELOPE":
                    texts[item.label] = [summary.envelope for summary in summaries]
                case b"BODY":
                    texts[item.label] = [summary.body for summary in summaries]
                case b"BODYSTRUCTURE":
                    texts[item.label] = [summary.body_structure for summary in summaries]
        return texts

    def _affordable(
        self, summaries: Sequence[Summary], texts: Iterable[Sequence[bytes]], budget: Budget
    ) -> int:  # fmt: skip
        columns = [list(map(len, column)) for column in texts]
        each, patterns = EACH * len(self.plan.items), len(self.plan.sections)
        scanned = [len(summary.fields) for summary in summaries] if patterns else [0] * len(summaries)
        if budget.has(each * len(summaries) + sum(map(sum, columns)) // COPIED + patterns * sum(scanned) // _SCANNED):
            return len(summaries)
        for at, lines in enumerate(scanned):
            copied = sum([column[at] for column in columns])
            try:
                budget.spend(each + copied // COPIED + patterns * lines // _SCANNED)
            except BudgetExceeded:
                if not at:
                    raise
                return at
        return len(summaries)

    def _column(self, item: Item) -> Sequence[object]:
        """The values of an item from columns, for the plan's line."""
        match item.label:
            case b"FLAGS":
                return self.flags
            case b"UID":
                return self.rows.uids
            case b"RFC822.SIZE":
                return self.rows.sizes
            case b"MODSEQ":
                return self.rows.modseqs
        return [writer.date_time(date) for date in self.rows.dates]
