"""Batches: sources of grouped images, their order, and the memory they are gathered into."""
