"""Our server beside its peers, and beside what ONNX Runtime and this machine can do; see bench/README.md."""
