"""Honeyframe connectors: the domain, importable and testable with no cluster."""
