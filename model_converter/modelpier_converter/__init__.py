"""Models of other frameworks to ONNX. The only place that imports torch; nothing that serves models imports this."""
