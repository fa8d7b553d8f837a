-- The app passwords that expire, by the time: a server looks for those that have.
CREATE INDEX credential_expires ON credential (expires) WHERE expires IS NOT NULL;
