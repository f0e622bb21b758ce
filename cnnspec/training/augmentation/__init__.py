"""Training images changed at random, the same way wherever and however often it is done."""
