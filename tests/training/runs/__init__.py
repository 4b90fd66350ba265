"""Tests of `training.runs`, file for file."""
