"""Speed and memory of the feeds beside their alternatives, in one run: ``python -m
scenarios.benchmarks``.

Every module but ``bars`` and ``__main__`` runs in a child of its own and prints its figures as one
line of JSON.
"""
