"""Digits that the project draws itself.

May import what `training.data.dataset` may.
"""
