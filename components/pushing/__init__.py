"""What the pusher is made of: the candidate, what speaks against pushing it, and how it is published."""
