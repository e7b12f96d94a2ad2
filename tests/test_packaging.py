"""The built wheel works where it is installed, with nothing of the checkout in reach."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from runic_redis.scripts import scripts_directory
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


def test_the_wheel_works_in_a_fresh_environment(tmp_path: Path, valkey: RunningServer) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"runic_redis/lua/{path.name}" for path in scripts_directory().glob("*.lua")} <= names
    assert {"runic_redis/py.typed", "runic_redis/embedded/supervisor.py"} <= names
    assert not any(name.startswith(("tests/", "lua/", "benchmarks/")) for name in names)

    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-compile", wheel, cwd=tmp_path)
    (tmp_path / "use.py").write_text(USE)
    output = run(python, "-W", "error", "use.py", valkey.url(), cwd=tmp_path)
    assert "[Placed(number=1)] (1, b'one') sha256:" in output
    assert "pip install 'runic-redis[memory]'" in output
    command = subprocess.run([python.with_name("runic-redis"), "demo"], text=True, capture_output=True, check=False)
    assert command.returncode != 0
    assert "pip install 'runic-redis[cli,embedded]'" in command.stderr
    # What messages say works although no index has the package: only what the extra needs is looked for.
    found = subprocess.run([*pip, "--no-index", "runic-redis[memory]"], text=True, capture_output=True, check=False)
    assert "No matching distribution found for fakeredis" in found.stderr
