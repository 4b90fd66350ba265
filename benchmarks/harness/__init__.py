"""What every benchmark is made of: processes, load, rounds, reports.

May import `app` and `classifier`, and no other room of `benchmarks`.
"""
