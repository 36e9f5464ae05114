"""What is measured: the catalogue, its bodies, the policy of the gate and the committed
baselines.
"""
