"""What to train and how, as data.

May import `networks`, `publishing`, `device`, `tensor_files`, `errors` and `png`.
"""
