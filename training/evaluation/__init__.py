"""How good a network is, from its logits.

May import `data`, `recipes`, `networks`, `publishing` and what stands below them.
"""
