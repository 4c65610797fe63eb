"""Modules for python-modules.yaml."""
