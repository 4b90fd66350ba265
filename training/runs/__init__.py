"""A training run: its stages and epochs, its state for resume, its log.

May import every room of `training` but `commands`.
"""
