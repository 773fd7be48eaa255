"""Programs of any functions of parameters and images: inlined, read for what scores are made of, run with gates."""
