"""Sizes as NAS-Bench-Suite-Zero's tables count them, from ours: what their networks lack, and what their FLOPs add.

Krishnakumar et al., "NAS-Bench-Suite-Zero", NeurIPS 2022, https://arxiv.org/abs/2210.03230. Their FLOPs count for each
output of a normalisation 2, or 1 where it has no scale and offset, for each number that a ReLU reads 1, and for pooling
what stands beside it below; their classifier's bias is free. Read off the tables: every row agrees.
"""

import ast

import numpy as np

from jnas.nets.modules import Build
from jnas.nets.two_inputs import TwoInputs, graphs_of
from jnas.spaces.genotype import INPUTS, Genotype
from jnas.spaces.nasbench101 import PAIRS

SEPARABLE = {"sep_conv_3x3": 2, "sep_conv_5x5": 2, "dil_conv_3x3": 1, "dil_conv_5x5": 1}


def nasbench101_code(text: str) -> np.ndarray:
    """The code, int[26], of a table's 49 bits of a matrix and 7 operations: 2 is pooling, 3 and 4 convolutions."""
    numbers = ast.literal_eval(text)
    matrix = np.array(numbers[:49]).reshape(7, 7)
    return np.array([*(matrix[pair] for pair in PAIRS), *(4 - number for number in numbers[50:55])])


def of_darts(genotype: Genotype, channels: int, cells: int, side: int) -> tuple[int, int]:
    """(parameters that their network lacks, FLOPs that they add) of a genotype's network of 3 stages.

    Operations have normalisations without scale and offset there, and pooling has one of its own.
    """
    network = TwoInputs(graphs_of(genotype), channels, 10, Build(), cells)
    stem = 3 * channels * side * side
    # What the older and the younger input of a cell have of numbers.
    lacking, adding, older, younger = 0, 2 * stem, stem, stem
    for place in network.places((side, side, 3)):
        stride = 1 + place.kind
        outputs = place.channels * place.height * place.width // stride**2
        inner = place.channels * place.height * place.width
        # ReLU, 1x1 convolution and normalisation of both inputs.
        adding += older + younger + 4 * inner
        edges = genotype.reduce if place.kind else genotype.normal
        for name, source in edges:
            read = inner if source < INPUTS else outputs
            if name in SEPARABLE:
                repeats = SEPARABLE[name]
                lacking += 2 * place.channels * repeats
                adding += read + outputs + (repeats - 1) * 2 * outputs
            elif name.endswith("pool_3x3"):
                adding += 10 * outputs
            elif source < INPUTS and place.kind:
                lacking += 2 * place.channels
                adding += read + outputs
        older, younger = younger, 4 * outputs
    # Read off the table as well: the pooling at the end, and the bias of the classifier that they leave out.
    return lacking, adding + 81 * 4 * place.channels - network.classes
