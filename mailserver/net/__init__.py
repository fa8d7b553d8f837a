"""The Twisted seam."""
