"""Training: recipes, data, augmentation, the loop, checkpoints, evaluation, distribution.

Networks come as graphs and become modules in `cnnspec.backends.torch`. How a terminal looks may
not enter: what happens is told to a `Watcher`.
"""
