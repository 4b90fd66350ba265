"""What a network is trained on: data sets, files, batches, workers.

May import `recipes`, `networks`, `publishing` and what stands below them.
"""
