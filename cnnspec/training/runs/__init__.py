"""The folder of a run: what is kept in it, how it is read, and whether a run may go on from it."""
