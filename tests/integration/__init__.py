"""Tests of several packages together."""
