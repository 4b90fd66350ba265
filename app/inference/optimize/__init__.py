"""Networks that compute the same values in less time.

May import what `app.inference` may.
"""
