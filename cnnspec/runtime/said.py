"""What onnx and ONNX Runtime say when they refuse something, without what is theirs to know."""

from __future__ import annotations

import re

__all__ = ["first_sentence"]

_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"(\S*/)?\w+\.(cc|h|cpp|cu)(:\d+)?( [\w:~<>, *&()\[\]]*\))?:? ?")
_LOADING = re.compile(r"^Load model from .* failed: ?|^Failed to load model with error: ?")
_LONGEST = 300


def first_sentence(refusal: BaseException) -> str:
    """The first line of what was said: no error codes, source files and C++ conditions."""
    if isinstance(refusal, UnicodeDecodeError):
        return "a name in it is no text"
    lines = (line.strip() for line in str(refusal).splitlines())
    said = _CODE.sub("", next(filter(None, lines), "no reason given"))
    for before in ("Status Message: ", " was false. "):
        said = said.rpartition(before)[2]
    while (shorter := _LOADING.sub("", said)) != said:
        said = shorter
    said = _SOURCE.sub("", said).strip().rstrip(".: ")
    return said[:_LONGEST] or "no reason given"
