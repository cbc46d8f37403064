"""The command line, for people without a cluster at hand."""
