"""Tests of `app.inference`, file for file."""
