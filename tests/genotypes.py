"""Genotypes as their authors print them."""

# Liu, Simonyan and Yang, ICLR 2019, second order.
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])"
)

# Nobody's: it has every operation in its normal cell, and on the edges that halve the image in the other.
EVERY_OPERATION = (
    "Genotype(normal=[('sep_conv_5x5', 0), ('dil_conv_5x5', 1), ('avg_pool_3x3', 1), ('max_pool_3x3', 2), "
    "('skip_connect', 2), ('sep_conv_3x3', 3), ('dil_conv_3x3', 0), ('sep_conv_5x5', 4)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('sep_conv_5x5', 0), ('dil_conv_5x5', 1), ('sep_conv_3x3', 0), "
    "('skip_connect', 1), ('dil_conv_3x3', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('dil_conv_3x3', 3)], "
    "reduce_concat=[2, 3, 4, 5])"
)
