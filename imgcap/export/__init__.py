"""From a run to what others use: an artefact, its ONNX graphs and torch programs, a model card."""

from imgcap.export.artefact import OWNED, export_run

__all__ = ["OWNED", "export_run"]
