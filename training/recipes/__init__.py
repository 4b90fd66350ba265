"""What to train and how, as data.

May import `networks`, `publishing`, `device`, `progress`, `atomic_files`, `errors` and `png`.
"""
