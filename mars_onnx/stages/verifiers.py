"""The verifier of every stage, by the name that a pass gives in its ``stage: ClassVar[str]``.

A verifier returns what is wrong, one line each; nothing means that the model is what the stage promises.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx_ir as ir

from mars_onnx.stages.canonical import verify_canonical
from mars_onnx.stages.sharded import verify_sharded

Verifier = Callable[[ir.Model], list[str]]

VERIFIERS: Mapping[str, Verifier] = MappingProxyType({"canonical": verify_canonical, "sharded": verify_sharded})
