"""Tests of `training.networks`, file for file."""
