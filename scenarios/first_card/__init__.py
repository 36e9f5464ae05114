"""What of the measuring meets a true card: ``python -m scenarios.first_card``. Needs pynvml and a
driver, no TensorFlow.

A holder (``holder``) is a child that takes memory on the card, through the driver itself or through
a framework, and has the sampler look at it, as a measured child has. The steps compare what was
asked of it with what our meters read.
"""
