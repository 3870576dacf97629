"""What processes of one server share: memory and small messages. Used by `runtime.isolation` and by `offload`."""
