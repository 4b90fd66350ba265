"""Serves checkpoints over HTTP. Imports nothing here."""
