"""Chaos: real processes, real signals, and a checker that compares what was asked for with what really happened.

`python -m tests.chaos.run --seconds 60 --seed 7` runs a plan made from the seed (`plan.py`) on real processes
(`world.py`), watches the bus (`observer.py`), and judges the evidence (`checker.py`).
"""
