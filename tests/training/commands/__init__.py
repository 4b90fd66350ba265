"""Tests of `training.commands`, file for file."""
