"""Tests of `benchmarks.harness`, file for file."""
