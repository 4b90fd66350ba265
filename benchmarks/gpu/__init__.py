"""What a GPU brings, all in one call: `python -m benchmarks.gpu.run`.

May import `harness`, and `app` and `classifier`.
"""
