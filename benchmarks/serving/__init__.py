"""How fast the server answers.

May import `harness`, and `app`, `training` and `classifier`.
"""
