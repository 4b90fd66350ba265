"""Tests of `app.processes`, file for file."""
