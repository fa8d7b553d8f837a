"""Submission and LMTP."""
