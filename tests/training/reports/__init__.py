"""Tests of `training.reports`, file for file."""
