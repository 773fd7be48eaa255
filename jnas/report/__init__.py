"""Pages, plots and drawings made from the files of a run."""
