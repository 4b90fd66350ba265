"""Tests of `training.data.strokes`, file for file."""
