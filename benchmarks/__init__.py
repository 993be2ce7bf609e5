"""Ours beside a peer, in one run: every figure is a ratio of two things measured on the same machine minutes apart."""
