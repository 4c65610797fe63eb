"""What needs more than one package: integration, chaos, benchmarks, the documentation's examples.

A package, so that its parts import each other as `tests.chaos.…` and run as `python -m tests.chaos.run`.
(The tests beside a package, in `packages/*/tests`, are plain files without `__init__.py`.)
"""
