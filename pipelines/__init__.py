"""What runs, in which order: the pipeline declared as data, its configuration, the local runner, the command line."""
