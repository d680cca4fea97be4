"""The settings of lmdeploy's engines, the same in this process and served."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dqe_resources.configurable import Strict

EngineName = Literal["turbomind", "pytorch"]


class EngineSettings(Strict):
    """How lmdeploy runs a model, by lmdeploy's own names; null leaves the choice to lmdeploy.

    Attributes:
        model: A folder, or the name of a repository on the hub.
        revision: Branch, tag or commit of the repository.
        trust_remote_code: Run the code that comes with the model: InternVL 2 and CogVLM2 need it for their tokenizers.
        chat_template: Name of one of lmdeploy's templates, or the path of a JSON file; by default the model's own.
        engine: ``auto`` takes TurboMind where it knows the model's architecture, and PyTorch otherwise.
        tp: GPUs that share the model (tensor parallelism).
        dtype: Type of weights and activations.
        model_format: Format of quantised weights: awq, gptq, fp8 ...
        session_len: The most tokens of prompt, image and caption together.
        max_batch_size: Captions generated at once: by default 384 on an A100, 1,024 on an H100 or H200, 128 on others.
        cache_max_entry_count: Share of the GPU memory left by the weights that the key-value cache takes.
        quant_policy: Bits of the key-value cache: 4 or 8; 0 for the model's own type; 16 for FP8, on the PyTorch engine
            only.
        block_size: Tokens of a block of the key-value cache.
        max_prefill_token_num: Tokens of prompts and images that are read in one step.
        enable_prefix_caching: Keep what the prompts of several captions begin with.
        vision_max_batch_size: Images at once in a vision tower that runs outside the engine.
        options: Any other field of lmdeploy's TurbomindEngineConfig or PytorchEngineConfig.
    """

    speed_only: ClassVar[frozenset[str]] = frozenset(
        {
            *("tp", "max_batch_size", "cache_max_entry_count", "block_size", "max_prefill_token_num"),
            *("enable_prefix_caching", "vision_max_batch_size", "trust_remote_code"),
        }
    )
    """Settings that decide how fast a caption is made, and not which."""

    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None
    engine: Literal["auto"] | EngineName = "auto"
    tp: Annotated[int, Field(ge=1)] = 1
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    model_format: str | None = None
    session_len: Annotated[int, Field(ge=1)] | None = None
    max_batch_size: Annotated[int, Field(ge=1)] | None = None
    cache_max_entry_count: Annotated[float, Field(gt=0, lt=1)] = 0.8
    quant_policy: Literal[0, 4, 8, 16] = 0
    block_size: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    max_prefill_token_num: Annotated[int, Field(ge=1)] = 8192
    enable_prefix_caching: bool = False
    vision_max_batch_size: Annotated[int, Field(ge=1)] = 8
    options: dict[str, Any] = Field(default_factory=dict)

    def fields_of(self, engine: EngineName) -> dict[str, Any]:
        """The fields of an engine's configuration class, by that class's names, less those left to lmdeploy."""
        fields = {
            "tp": self.tp,
            "dtype": self.dtype,
            "model_format": self.model_format,
            "session_len": self.session_len,
            "max_batch_size": self.max_batch_size,
            "cache_max_entry_count": self.cache_max_entry_count,
            "quant_policy": self.quant_policy,
            "cache_block_seq_len" if engine == "turbomind" else "block_size": self.block_size,
            "max_prefill_token_num": self.max_prefill_token_num,
            "enable_prefix_caching": self.enable_prefix_caching,
        }
        return {**{name: value for name, value in fields.items() if value is not None}, **self.options}
