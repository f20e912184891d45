"""Gaussian diffusion, its samplers and guidance. Imports nothing else of this package.

Letters in the docstrings: B batch, C image channels (1 or 3), H W pixels, T steps.
"""
