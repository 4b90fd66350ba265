"""Tests of `app.inference.optimize`, file for file."""
