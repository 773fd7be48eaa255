"""Hand-written kernels for cells on channel-first planes; `jnas.nets.fast.bundles` says which cells have one."""
