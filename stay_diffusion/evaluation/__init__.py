"""Measure sets of generated images."""
