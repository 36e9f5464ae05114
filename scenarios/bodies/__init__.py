"""The code that a child runs; imports TensorFlow and ptycho, and is loaded by name only."""
