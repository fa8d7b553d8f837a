"""The map of host names to certificates that a configuration leads to.

`wiring` and `net` use it, and so does `mailserver check`. Begin with `policy.py`; `validation.py` finds faults,
`context_builder.py` builds the map.
"""
