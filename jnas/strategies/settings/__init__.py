"""Settings of the strategies by family; each makes its own strategy."""
