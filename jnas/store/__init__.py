"""Files of a run: its folder, its records, its checkpoints."""
