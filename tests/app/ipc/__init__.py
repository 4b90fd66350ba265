"""Tests of `app.ipc`, file for file."""
