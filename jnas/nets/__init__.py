"""Networks in Flax: cells, supernets and single architectures, by one definition each."""
