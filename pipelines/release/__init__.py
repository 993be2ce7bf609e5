"""A release: a new version beside the one that serves, until it is promoted or rolled back."""
