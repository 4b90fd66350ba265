"""What a person can ask for: train, evaluate, import, export, reproduce, prune.

May import every other room of `training`.
"""
