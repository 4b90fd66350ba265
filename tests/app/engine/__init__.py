"""Tests of `app.engine`, file for file."""
