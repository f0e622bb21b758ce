"""CPU sessions of ONNX Runtime, as building and proving a model need them.

Prediction and timing have their own sessions in `cnnspec.runtime`.
"""

from __future__ import annotations

import os

import onnxruntime
from onnx import TensorProto, defs, helper

__all__ = ["newest_opset", "session"]

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


def session(
    model: bytes | str | os.PathLike[str],
    *,
    optimise: onnxruntime.GraphOptimizationLevel,
    threads: int = 2,
    folder: str | os.PathLike[str] | None = None,
) -> onnxruntime.InferenceSession:
    """A session of a serialized model or a file on the CPU, silent: what goes wrong is raised.

    `folder` is where the external data of a serialized model lies, if it has any.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = optimise
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if folder is not None:
        options.add_session_config_entry(_EXTERNAL_FOLDER, os.fspath(folder))
    source = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def newest_opset() -> int:
    """The newest opset that the installed ONNX Runtime loads, found by trying.

    onnx itself offers newer ones, which ONNX Runtime refuses.
    """
    newest = int(defs.onnx_opset_version())
    for opset in range(newest, 0, -1):
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        body = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:]
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(
            body, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)
        )
        try:
            session(
                model.SerializeToString(),
                optimise=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
                threads=1,
            )
        except Exception:
            continue  # ONNX Runtime's error classes have no public base; each of them means no
        return opset
    raise RuntimeError("ONNX Runtime loads no opset at all")
