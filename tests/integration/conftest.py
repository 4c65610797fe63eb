"""What the tests of this folder share."""

import shutil
from collections.abc import Iterator

import pytest

from tests.integration.environments import Environments, find_uv


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """All wheels, built, and a maker of environments for them."""
    folder = tmp_path_factory.mktemp("wheels")
    made = Environments(find_uv(), folder)
    made.build()
    yield made
    shutil.rmtree(folder, ignore_errors=True)  # a dozen environments are not worth keeping
