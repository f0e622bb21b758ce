"""Measurements of cnnspec against the tools people use today; no part of the package."""
