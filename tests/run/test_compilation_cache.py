import jax
import pytest

from jnas.run.compilation_cache import enable_compilation_cache


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_it_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = enable_compilation_cache()
    assert folder == tmp_path / "cache" / "jnas" / "jax"
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_home_where_no_cache_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert enable_compilation_cache() == tmp_path / ".cache" / "jnas" / "jax"


def test_the_users_own_choice_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    assert enable_compilation_cache() == tmp_path
    assert jax.config.jax_compilation_cache_dir == before


def test_off_where_it_cannot_be_written(monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    before = jax.config.jax_compilation_cache_dir
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir == before
    assert "compilation cache off" in caplog.text
