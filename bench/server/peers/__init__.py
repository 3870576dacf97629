"""The peers' side: what a user of each writes to serve an ONNX model. Each module runs in its own environment."""
