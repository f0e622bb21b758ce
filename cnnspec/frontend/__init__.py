"""From the text of a spec to a checked, expanded and shaped graph."""
