"""Tests of `app.decoding`, file for file."""
