"""What holds for every test: hypothesis measures no times, as a busy machine would fail its deadline."""

from hypothesis import settings

settings.register_profile("jnas", deadline=None)
settings.load_profile("jnas")
