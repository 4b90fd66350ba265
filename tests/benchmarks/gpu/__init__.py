"""Tests of `benchmarks.gpu.run`, file for file."""
