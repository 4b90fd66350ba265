"""Tests of `examples`, file for file."""
