"""The control plane, without I/O: peers, handshakes, sessions, timers, cookies and routes."""
