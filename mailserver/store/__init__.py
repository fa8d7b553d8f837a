"""Mailboxes on disk and in memory, behind interfaces that no protocol shapes.

Protocol sessions use `interfaces`, `rows`, `query` and `live`. Only `wiring` and commands choose `maildir`; `memory` is
the model for tests. Begin with `interfaces`.
"""
