"""Where labelled photos come from: one file for each kind of source, and the choice among them by name (`factory`)."""
