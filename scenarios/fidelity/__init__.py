"""The same points on the emulated device, on a pretended card and on a real one: ``python -m
scenarios.fidelity``.

What is compared is ``device_in_use``, phase by phase: how far a pretended card stands for a real
one, and the emulated device for either. Every difference is split into parts that a rule explains,
and the rest, which is said to be unexplained.
"""
