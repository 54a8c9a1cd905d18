"""Floor 7: tables, plots and files of results."""
