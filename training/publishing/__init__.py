"""How a checkpoint gets into the store, and how one is opened again.

May import `tensor_files`, `errors` and `png`.
"""
