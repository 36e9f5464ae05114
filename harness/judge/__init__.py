"""Pure functions over tables: fits, baselines, rules, verdicts. Needs neither TensorFlow nor a
GPU.
"""
