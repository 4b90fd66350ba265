"""Tests of `benchmarks`, file for file."""
