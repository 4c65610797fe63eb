"""The molecule Operative: a task is a job of its own."""

from gbe_operative_molecule.operative import MoleculeOperative

__all__ = ["MoleculeOperative"]
