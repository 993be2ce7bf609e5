"""What is known of a model while it is used: statistics and decisions without files, servers or clocks."""
