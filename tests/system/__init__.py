"""Tests of several parts together, and of the project's own files."""
