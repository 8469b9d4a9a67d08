"""A pass from elsewhere."""

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class CountOperators(ir.passes.InPlacePass):
    """Write into the model's metadata how many nodes of each operator it has.

    Contract: takes any model and changes nothing but the key.

    Before::

        y = Relu (x)

    After::

        metadata: operators = "Relu=1"

    Options:
        key: The metadata key.
        least: Leave out operators with fewer nodes.
    """

    key: str = "operators"
    least: int = 1

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        counts = Counter(node.op_type for node in model.graph)
        text = " ".join(f"{op}={count}" for op, count in sorted(counts.items()) if count >= self.least)
        modified = model.metadata_props.get(self.key) != text
        model.metadata_props[self.key] = text
        return ir.passes.PassResult(model, modified)
