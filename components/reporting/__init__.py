"""What people read: metrics, plots, and the pages with their templates."""
