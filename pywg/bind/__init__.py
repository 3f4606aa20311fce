"""UDP sockets: opened, configured, and asked what they can offload."""
