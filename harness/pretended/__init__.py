"""A pretended card: stubs of NVIDIA's libraries, built against their genuine headers, for machines
without a card.
"""
