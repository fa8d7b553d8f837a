"""`python -m mailserver.cli` is the `mailserver` command."""

from mailserver.cli import main

main()
