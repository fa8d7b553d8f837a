"""Gives `twistd` its `mailserver` command. Only names stand here: the module is imported when it is used."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(  # noqa: N816 - twisted.plugin looks at every name; this is the customary one
    "mailserver",
    "mailserver.tap",
    "IMAP, POP3, submission and LMTP, each domain under its own certificate",
    "mailserver",
)
