"""Tests of `app.api`, file for file."""
