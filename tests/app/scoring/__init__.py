"""Scoring of images offline."""
