"""Moves an older install: plaintext secrets into the vault, notification settings into rows, rows to Git."""
