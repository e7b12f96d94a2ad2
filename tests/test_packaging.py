"""The built wheel works in a fresh environment, without the checkout."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

from build import ProjectBuilder
from build.env import DefaultIsolatedEnv
from pyproject_hooks import quiet_subprocess_runner

from runic_redis.protocol.scripts import scripts_directory
from tests.servers import RunningServer

ROOT = Path(__file__).parent.parent

USE = """
import sys
from dataclasses import dataclass
from pathlib import Path
import runic_redis
from runic_redis import RedisStore, event

@event("placed")
@dataclass
class Placed:
    number: int

assert Path(runic_redis.__file__).is_relative_to(sys.prefix), runic_redis.__file__
with RedisStore.from_url(sys.argv[1], namespace="wheel") as store:
    store.append("order-1", [Placed(1)])
    store.save_snapshot("order-1", 1, b"one")
    print(list(store.stream("order-1")), store.load_snapshot("order-1"), store.put_fact("value")[:10])
try:
    RedisStore.from_url("memory://")
except runic_redis.ConfigurationError as error:
    print(error)
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def build_wheel(directory: Path) -> Path:
    """Build the source distribution, and the wheel from that, as `python -m build` does."""
    with DefaultIsolatedEnv() as environment:
        builder = ProjectBuilder.from_isolated_env(environment, ROOT, runner=quiet_subprocess_runner)
        environment.install(builder.build_system_requires)
        source = builder.build("sdist", directory / "dist")
        with tarfile.open(source) as archive:
            archive.extractall(directory / "source", filter="data")
        (unpacked,) = (directory / "source").iterdir()
        builder = ProjectBuilder.from_isolated_env(environment, unpacked, runner=quiet_subprocess_runner)
        return Path(builder.build("wheel", directory / "dist"))


def test_the_wheel_works_in_a_fresh_environment(tmp_path: Path, valkey: RunningServer) -> None:
    wheel = build_wheel(tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"runic_redis/lua/{path.name}" for path in scripts_directory().glob("*.lua")} <= names
    assert {"runic_redis/py.typed", "runic_redis/embedded/supervisor.py"} <= names
    assert "runic_redis/benchmarks/run.py" in names, "the verb bench"
    assert not any(name.startswith(("tests/", "lua/", "benchmarks/")) for name in names)

    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-compile", wheel, cwd=tmp_path)
    (tmp_path / "use.py").write_text(USE)
    output = run(python, "-W", "error", "use.py", valkey.url(), cwd=tmp_path)
    assert "[Placed(number=1)] (1, b'one') sha256:" in output
    assert "pip install 'runic-redis[memory]'" in output
    run(
        python, "-W", "error", "-c", "import runic_redis.benchmarks.measure, runic_redis.benchmarks.cases", cwd=tmp_path
    )
    command = subprocess.run([python.with_name("runic-redis"), "demo"], text=True, capture_output=True, check=False)
    assert command.returncode != 0
    assert "pip install 'runic-redis[cli,embedded]'" in command.stderr
    # The command that messages advise works without an index that has the package: pip looks for the dependency alone.
    found = subprocess.run([*pip, "--no-index", "runic-redis[memory]"], text=True, capture_output=True, check=False)
    assert "No matching distribution found for fakeredis" in found.stderr
