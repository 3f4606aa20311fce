"""All packet I/O: bursts between the tunnel device and the sockets, sealed and opened."""
