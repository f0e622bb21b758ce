"""Back ends: a graph becomes a torch module or an ONNX model. Only here may both be imported."""
