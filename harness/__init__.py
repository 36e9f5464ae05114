"""Measure memory phase by phase in isolated children, and judge how it grows."""
