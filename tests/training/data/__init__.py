"""Tests of `training.data`, file for file."""
