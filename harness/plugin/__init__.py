"""What the pytest plug-in is made of: options, the plan of a session, its run directory, what its
tests measure, and the judgement. The names below are what users write in their tests.
"""

MARK = "memory"
"""``@pytest.mark.memory(body, ...)``."""
FIXTURE = "memory_run"
RUNNER = "memory_turns"
"""The fixture that every measuring test needs: by its marker, by ``measure`` or ``memory_run``."""
POINT_PROPERTY = "memory_point"
"""Property of a test's report, and of the test in junit.xml: a point with findings."""
