"""Rules of the project that a compiler does not see: which folder may include which, and what every clone needs."""

import os
import pathlib
import re
import subprocess

import pytest
import yaml

project = pathlib.Path(__file__).resolve().parents[2]

# Which folders the files of a folder may include, besides their own.
ALLOWED = {
    "core": set(),
    "data": {"core"},
    "models": {"core", "data"},
    "distributed": {"core"},
    "selection": {"core", "distributed"},
    "training": {"core", "data", "models", "distributed", "selection"},
    "cuda": {"core", "data", "distributed"},
    "launch": {"core", "data", "models", "distributed", "selection", "training", "cuda"},
}
SOURCE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def source_files(*folders: str) -> list[pathlib.Path]:
    """All C++ and CUDA files below these folders of the project."""
    return sorted(p for folder in folders for p in (project / folder).rglob("*") if p.suffix in SOURCE_SUFFIXES)


def wrong_includes(folder: str, text: str) -> list[str]:
    """The includes in `text`, a file of `folder`, that point against the direction of the project."""
    allowed = ALLOWED[folder] | {folder}
    return [name for name in INCLUDE.findall(text) if name.split("/")[0] in ALLOWED and name.split("/")[0] not in allowed]


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_includes_follow_the_direction_of_the_project(folder):
    found = {str(p.relative_to(project)): wrong_includes(folder, p.read_text()) for p in source_files(folder)}
    wrong = {path: names for path, names in found.items() if names}
    assert not wrong, f"{folder} may include only {sorted(ALLOWED[folder])}"


def test_a_wrong_include_is_noticed():
    assert wrong_includes("core", '#include "core/error.h"\n#include <vector>\n') == []
    assert wrong_includes("core", '#include "data/dataset.h"\n') == ["data/dataset.h"]
    assert wrong_includes("models", '#  include "distributed/communicator.h"\n') == ["distributed/communicator.h"]
    assert wrong_includes("selection", '#include "models/module.h"\n') == ["models/module.h"]


def test_every_folder_with_sources_has_a_rule():
    not_libraries = {"tests", "benchmarks", "cmake", "build", "runs", "analysis"}
    folders = {p.name for p in project.iterdir() if p.is_dir() and not p.name.startswith(".")} - not_libraries
    with_sources = {name for name in folders if any(source_files(name))}
    assert with_sources == with_sources & set(ALLOWED)
    assert {"core", "data", "models", "distributed", "selection", "training", "launch"} <= with_sources


def test_whole_torch_headers_are_not_included():
    # 13 to 30 s of compile time for each file that does.
    heavy = {"torch/torch.h", "torch/all.h", "torch/extension.h", "ATen/ATen.h"}
    everywhere = source_files(*ALLOWED, "tests", "benchmarks", "cmake")
    assert everywhere
    wrong = {str(p.relative_to(project)): heavy & set(INCLUDE.findall(p.read_text())) for p in everywhere}
    assert not {path: names for path, names in wrong.items() if names}


def test_core_sees_neither_mpi_nor_nccl_and_yaml_only_in_its_reader():
    for path in source_files("core"):
        includes = INCLUDE.findall(path.read_text())
        assert not [name for name in includes if name in ("mpi.h", "nccl.h")], path
        if any(name.startswith("yaml-cpp/") for name in includes):
            assert path.name.startswith("config") and path.suffix == ".cpp", f"{path} includes yaml-cpp"


def test_no_test_is_skipped_or_disabled():
    # A test that cannot run on this machine is not registered; the words are split so that this file does not match.
    words = ["GTEST" "_SKIP", "DISABLED" "_", "pytest.mark." "skip", "pytest." "skip(", "importor" "skip", "mark." "xfail"]
    for path in [*source_files("tests"), *sorted((project / "tests").rglob("*.py"))]:
        text = path.read_text()
        assert not [word for word in words if word in text], path


def test_scripts_are_executable():
    scripts = [project / name for name in ("quickstart.sh", "test.sh", "tools/check.sh", ".ci/run", "containers/install.sh")]
    for path in scripts:
        assert os.access(path, os.X_OK), f"chmod +x {path}"
        assert path.read_text().startswith("#!/usr/bin/env bash\n"), path


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh", ".ci/run", "tools/common.sh", "tools/setup.sh"])
def test_scripts_parse(script):
    assert subprocess.run(["bash", "-n", project / script], check=False).returncode == 0


def test_containers_and_conda_take_the_packages_of_the_scripts():
    for name in ("Dockerfile", "sage.def"):
        text = (project / "containers" / name).read_text()
        assert text.index("containers/install.sh setup") < text.index("containers/install.sh build"), name
    conda = yaml.safe_load((project / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert conda["name"] == "sage"
    assert pip == ["-r tools/requirements.txt", "-r tools/requirements-torch.txt"]
    assert all((project / line.removeprefix("-r ")).is_file() for line in pip)


def test_every_python_package_is_pinned():
    for name in ("requirements.txt", "requirements-torch.txt"):
        lines = [line for line in (project / "tools" / name).read_text().splitlines() if not line.startswith("#")]
        assert lines and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), name
        assert len({line.split("==")[0].lower() for line in lines}) == len(lines), name


def test_quickstart_refuses_an_unknown_option_with_one_clear_message():
    result = subprocess.run([project / "quickstart.sh", "--frehs"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Unknown option --frehs" in result.stderr
    assert "FAILED" in result.stderr


def test_citation_names_the_software_and_the_papers():
    citation = yaml.safe_load((project / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software" and citation["license"] == "MIT"
    assert citation["title"] and citation["message"] and citation["authors"]
    assert any("2510.02470" in reference.get("url", "") for reference in citation["references"])
    version = re.search(r"project\(sage VERSION (\S+)", (project / "CMakeLists.txt").read_text()).group(1)
    assert citation["version"] == version


def test_every_folder_says_what_it_is_for():
    folders = [*ALLOWED, "analysis", "benchmarks", "configs", "containers", "tests", "tools", "docs"]
    for folder in folders:
        readme = project / folder / "README.md"
        assert readme.is_file() and len(readme.read_text()) > 100, f"{folder}/README.md is missing or says nothing"


def exit_statuses() -> dict[str, int]:
    """Name and number of each status in core/error.h."""
    body = re.search(r"enum class ExitStatus : int \{(.*?)\};", (project / "core/error.h").read_text(), re.DOTALL).group(1)
    return {name: int(number) for name, number in re.findall(r"(\w+) = (\d+)", body)}


def test_documented_exit_codes_are_those_of_the_program():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (project / "docs/exit_codes.md").read_text(), re.MULTILINE)
    assert {name: int(number) for number, name in rows} == exit_statuses()


def test_links_in_the_readmes_lead_somewhere():
    for readme in [project / "README.md", project / "CONTRIBUTING.md", *sorted((project / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text()):
            assert (readme.parent / target).exists(), f"{readme.name} links to {target}"


def test_the_worked_examples_are_those_that_are_tested():
    source = (project / "tests/training/worked_examples_test.cpp").read_text()
    text = (project / "CONTRIBUTING.md").read_text()
    names = re.findall(r"^// \[([a-z ]+)\]$", source, re.MULTILINE)
    examples = [name for name in names if not name.endswith(" end")]
    assert examples == ["data set", "network", "selection method"]
    for name in examples:
        code = source.split(f"// [{name}]\n")[1].split(f"// [{name} end]")[0]
        assert f"```cpp\n{code}```\n" in text, f"the example of a {name} in CONTRIBUTING.md differs from the tested one"
