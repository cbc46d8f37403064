"""The SQL tables and their migrations, sessions, nothing else."""
