"""The Open Inference Protocol over gRPC: messages to tensors and back.

Imported only where a gRPC port is asked for: protobuf's runtime costs a start that does without it some milliseconds.
"""
