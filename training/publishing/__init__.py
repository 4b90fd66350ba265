"""How a checkpoint gets into the store, and how one is opened again.

May import `progress`, `atomic_files`, `errors` and `png`.
"""
