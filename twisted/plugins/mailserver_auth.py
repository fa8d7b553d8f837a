"""The back ends that come with the server. Only names stand here: each module is imported when it is used."""

from mailserver.auth.plugins import AuthBackendMaker

file = AuthBackendMaker("file", "mailserver.auth.backends.file", "path of a users file in Dovecot's passwd-file format")
memory = AuthBackendMaker("memory", "mailserver.auth.backends.memory", "user=password, parted by commas; for tests")
strcred = AuthBackendMaker(
    "strcred", "mailserver.auth.backends.strcred", "a twisted.cred checker, TYPE or TYPE:ARGUMENT"
)
