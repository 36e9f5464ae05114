"""The proof of the gate as a detector: planted regressions that it has to find, and clean runs that
it has to pass.

``python -m scenarios.detector --help``; the registry is ``plants.py``.
"""
