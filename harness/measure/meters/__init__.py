"""One file per instrument, behind one small Protocol."""
