"""Certificates, and which one is served under which name."""
