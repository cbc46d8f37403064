"""Credentials at rest: cipher, keyring, and the vault that keeps every version."""
