"""Methods that train one supernet and look at what it learned; `METHODS` holds their modules by name."""

from types import ModuleType

from jnas.oneshot import posterior

METHODS: dict[str, ModuleType] = {"posterior": posterior}
