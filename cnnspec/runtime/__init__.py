"""ONNX files at work: opened safely, fed with images, run on a chosen provider. Needs no torch.

Files come from anywhere: nothing in one is trusted, and what is wrong with it is one clear
`EnvironmentFailure`. How files are made is the back end's, which may not enter. Nothing is imported
here: whoever measures torch has no ONNX Runtime in the same process.
"""
