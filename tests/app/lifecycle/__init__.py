"""Tests of `app.lifecycle`, file for file."""
