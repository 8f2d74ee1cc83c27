"""Running statistics: whether they are healthy, how far data has drifted from them, and how to compute them again.

What they decide, and when they go wrong, is described in ``docs/statistics.md``.
"""
