"""Runs in the child: phases, meters and the worker that emits one line per finished phase."""
