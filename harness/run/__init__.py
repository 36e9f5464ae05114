"""Runs in the parent: points to devices to children to rows. Never imports TensorFlow."""
