"""Tests of `app`, file for file."""
