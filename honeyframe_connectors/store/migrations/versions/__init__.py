"""Migrations of the metadata store. They only ever expand, so that an older release still works on a newer store."""
