"""Tests of `training.publishing`, file for file."""
