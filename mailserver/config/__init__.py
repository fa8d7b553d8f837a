"""The configuration: one TOML file, loaded into frozen values, with all problems reported at once.

`model/` declares every table and key with its description. `load.py` reads a file; `check*.py` compare values with each
other; `edit.py` changes the file. `describe.py` generates docs/configuration.md and etc/mailserver.toml. Every layer may import
it; it imports only types and errors. To add a key, begin in `model/`.
"""
