"""Tests of `training.evaluation`, file for file."""
