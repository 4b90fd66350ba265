"""Scores images offline: what there is to score, the models that do it, and rows that are neither lost nor doubled.

May import `inference`, `lifecycle`, `decoding` and what stands below them.
"""
