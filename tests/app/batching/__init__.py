"""Tests of `app.batching`, file for file."""
