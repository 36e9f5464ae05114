"""What people read: tables, plots, the page and the summary."""
