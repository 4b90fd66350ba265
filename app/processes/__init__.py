"""Who runs where: the supervisor, the front-ends, the engine process, or one process that does it all.

This room puts the others together, so it may import every one of them.
"""
