"""The paper's cryptography: primitives, keys, the IKpsk2 handshake, cookies and timestamps."""
