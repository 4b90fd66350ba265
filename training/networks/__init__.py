"""Networks and weights: which parts train, how weights from elsewhere fit.

May import `progress`, `atomic_files`, `errors` and `png`.
"""
