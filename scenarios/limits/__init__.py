"""Which limits hold in which scenario, phase and meter: ``python -m scenarios.limits``."""
