"""Stores that are not folders of this machine: what lies behind a URL is listed, fetched and published.

Imports no torch. fsspec is imported only where there is a URL.
"""
