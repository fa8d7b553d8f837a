"""The back ends that come with the server. Only names stand here: each module is imported when it is used."""

from mailserver.auth.plugins import AuthBackendMaker

directory = AuthBackendMaker(
    "directory", "mailserver.auth.backends.directory", "path of a directory, made by `mailserver directory create`"
)
file = AuthBackendMaker("file", "mailserver.auth.backends.file", "path of a users file in Dovecot's passwd-file format")
memory = AuthBackendMaker("memory", "mailserver.auth.backends.memory", "user=password, parted by commas; for tests")
strcred = AuthBackendMaker(
    "strcred", "mailserver.auth.backends.strcred", "a twisted.cred checker, TYPE or TYPE:ARGUMENT"
)
virtual = AuthBackendMaker(
    "virtual", "mailserver.auth.backends.virtual", "path of a file of aliases in Postfix's format, which has no users"
)
