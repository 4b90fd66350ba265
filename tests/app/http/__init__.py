"""Tests of `app.http`, file for file."""
