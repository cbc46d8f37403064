"""The kinds as pydantic models: the source of the CRDs, the schemas and the docs."""
