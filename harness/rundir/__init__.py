"""What a run directory holds: rows, run.json, traces, the seal; defined, written and read here."""
