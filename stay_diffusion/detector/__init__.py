"""Detectors, and whether generated images help them."""
