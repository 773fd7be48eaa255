"""Settings of a scoring."""

from jnas.config.score import from_mapping

# ----------------------------------------------------------------------------------------------------- settings


def test_defaults():
    config = from_mapping({})
    assert (config.space, config.data, config.seed, config.memory_gb) == ("nasbench201", "digits", 0, 0.0)
    assert (config.network.batch, config.network.channels, config.network.cells_per_stage) == (64, 16, 5)
    assert (config.ntk.batch, config.ntk.repeats, config.regions.repeats) == (32, 1, 1)
    of_darts = from_mapping({"space": "darts", "network": {"batch": 8}})
    assert (of_darts.ntk.channels, of_darts.ntk.repeats, of_darts.network.cells_per_stage) == (1, 1, 1)
    assert from_mapping({"space": "darts", "network": {"cells_per_stage": 2}}).network.cells_per_stage == 2
