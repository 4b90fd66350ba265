"""Tries the container for real: builds the image, runs it as a cluster would, and asks it (`make container-check`).

Nothing here is collected by pytest, and nothing but the standard library is imported: the machine needs no environment.
"""
