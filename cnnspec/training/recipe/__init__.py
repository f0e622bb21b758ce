"""Recipes: read, checked with positions, written again. No torch is imported here."""
