"""Build hook: ship hwdb/ and models/ inside the wheel as ``mars_onnx/_data``.

Both are plain folders at the top of the checkout, where people look for them. A top-level package called
``models`` in site-packages would clash with other people's, so a wheel carries them below ``mars_onnx/``; an
editable install finds them in the checkout (see ``mars_onnx/data.py``).
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShipData(BuildHookInterface):  # type: ignore[type-arg]
    """Add the data folders to a standard wheel; leave an editable one alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"]["hwdb"] = "mars_onnx/_data/hwdb"
            build_data["force_include"]["models"] = "mars_onnx/_data/models"
