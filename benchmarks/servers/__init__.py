"""The servers that flambeau is compared with, each in the best configuration that we found.

May import `classifier`, which they share with what is measured; nothing of `app`.
"""
