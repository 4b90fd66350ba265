"""The specification of benchmarks.scale, one file for each of its modules."""
