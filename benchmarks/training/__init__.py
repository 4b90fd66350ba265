"""How fast and how good training is.

May import `harness`, and `training` and `classifier`.
"""
