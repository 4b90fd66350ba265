"""Makes checkpoints. Imports nothing here."""
