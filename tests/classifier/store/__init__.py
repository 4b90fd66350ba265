"""Tests of `classifier/store/`."""
