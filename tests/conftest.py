"""What the Python tests share."""

import os
import pathlib

import pytest

project = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def build_folder() -> pathlib.Path:
    """The build to test: SAGE_BUILD_DIR, else build/cuda, which test.sh makes."""
    folder = pathlib.Path(os.environ.get("SAGE_BUILD_DIR", project / "build" / "cuda"))
    assert (folder / "bin" / "sage").is_file(), f"{folder} holds no program: build first, or set SAGE_BUILD_DIR"
    return folder


@pytest.fixture(scope="session")
def run_environment() -> dict[str, str]:
    """The environment for starting the program, alone or under mpirun."""
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}
