"""What the pytest plug-in is made of: its options, the plan of a session, its run directory, its
fixtures.
"""
