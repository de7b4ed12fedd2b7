"""What a person reads: tables, plots and the page of a run."""
