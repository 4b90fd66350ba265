"""What a GPU brings: `python -m benchmarks.gpu.run` measures it all.

May import `harness`, and `app` and `classifier`.
"""
