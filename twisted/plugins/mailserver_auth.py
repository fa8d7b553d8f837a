"""The back ends that come with the server. Only names stand here: each module is imported when it is used."""

from mailserver.auth.plugins import AuthBackendMaker

file = AuthBackendMaker("file", "mailserver.auth.file", "path of a users file in Dovecot's passwd-file format")
memory = AuthBackendMaker("memory", "mailserver.auth.memory", "user=password, parted by commas; for tests")
strcred = AuthBackendMaker("strcred", "mailserver.auth.strcred", "a twisted.cred checker, TYPE or TYPE:ARGUMENT")
