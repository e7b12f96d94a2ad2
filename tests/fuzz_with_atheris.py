"""Fuzzing guided by coverage: ``python -m tests.fuzz_with_atheris TARGET [option of libFuzzer …]``.

It runs until it finds a failure, or for ``-max_total_time=SECONDS``. It keeps its corpus in .fuzz/TARGET and failing
inputs in .fuzz/TARGET-crash-…. To try such a file again, pass it after the target. Needs atheris, from the extra
``fuzz``.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["runic_redis.codec", "runic_redis.events", "runic_redis.operations"]):
    from tests import fuzzing

DIRECTORY = Path(".fuzz")
# A value may take a hundred times as much memory as its encoded bytes, and an event two hundred times as much.
LIMITS = ("-max_len=65536", "-rss_limit_mb=4096", "-timeout=60")


def main(target: str, *options: str) -> None:
    corpus = DIRECTORY / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(fuzzing.seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    inputs = [] if any(Path(option).is_file() for option in options) else [str(corpus)]
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={corpus}-", *options, *inputs], fuzzing.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--targets"]:
        print(*fuzzing.TARGETS)
    else:
        main(*sys.argv[1:])
