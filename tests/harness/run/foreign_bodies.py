"""Bodies of children in the tests of foreign code; loaded by name."""


def name_ptycho(memory, parameters):
    """Import the package of that name in mid-phase."""
    with memory.phase("look"):
        import ptycho  # noqa: F401
