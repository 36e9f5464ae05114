"""The bugs themselves: functions that change the loader in the child, before the scenario's body
runs. Loaded by name only.
"""
