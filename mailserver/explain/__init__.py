"""Explanations of logins: the id of a refusal, its trace, and where traces are kept.

`names` decides which typed names may be written anywhere, `refs` makes the ids, `trace` is the record of one attempt. Knows
types and errors only.
"""
