"""Noticing changes of others."""
