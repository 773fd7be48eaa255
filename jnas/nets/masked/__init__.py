"""Networks whose input channels are masked: the supernets of the posterior's paper, one file each."""
