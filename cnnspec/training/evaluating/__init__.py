"""How good a network is: what is counted, over which images, and how it is shown.

ONNX files are evaluated without torch: only modules that say so import it.
"""
