"""Tests of `app.telemetry`, file for file."""
