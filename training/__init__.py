"""Trains networks and publishes them as checkpoints. Nothing is imported here.

The rooms, from the top: `commands`, `runs`, `reports`, `evaluation`, `data`, `recipes`, `networks`, `publishing`.
A room imports only rooms below it.
"""
