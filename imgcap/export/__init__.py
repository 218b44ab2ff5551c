"""From a run to what others use: an artefact, its ONNX graphs and torch programs, a model card."""
