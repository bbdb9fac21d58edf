"""`cmake --install` into an empty folder, and a project of its own that links the installed selection library."""

import pathlib
import re
import subprocess

import pytest

here = pathlib.Path(__file__).resolve().parent


def run(*command, **options) -> subprocess.CompletedProcess:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def installed(build_folder, tmp_path_factory) -> pathlib.Path:
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build_folder, "--prefix", prefix)
    return prefix


def test_the_installed_program_starts(installed, run_environment):
    output = run(installed / "bin" / "sage", "--version", env=run_environment).stdout
    assert "0.1.0" in output
    assert re.search(r"^libtorch +2\.", output, re.MULTILINE)


def test_another_project_links_the_selection_library(installed, tmp_path, run_environment):
    run("cmake", "-S", here, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={installed}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", tmp_path)
    output = run(tmp_path / "consumer", env=run_environment).stdout
    found = re.fullmatch(r"rows (\d+) ranks 1 methods \d+ error (\S+) certificate (\S+)\n", output)
    assert found, output
    rows, error, certificate = int(found[1]), float(found[2]), float(found[3])
    assert 1 <= rows < 16
    assert 0 < error <= certificate * (1 + 1e-5)


def test_the_installed_package_names_no_folder_of_the_source_tree(installed, build_folder):
    source = here.parents[1]
    for path in sorted((installed / "lib").rglob("*.cmake")):
        text = path.read_text()
        assert "sage_options" not in text, path
        assert str(source / "core") not in text and str(build_folder) not in text, path
