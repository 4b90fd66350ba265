"""Networks and weights: which parts train, how weights from elsewhere fit.

May import `tensor_files`, `errors` and `png`.
"""
