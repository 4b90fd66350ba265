"""Tests of `training.recipes`, file for file."""
