"""Parts of `python -m benchmarks gpu`, in order of worth."""

import dataclasses
from pathlib import Path

__all__ = ["PARTS", "Part"]

# Seconds of a part of a rehearsal on two cores, roughly.
_REHEARSED_QUICK, _REHEARSED = 20, 90


@dataclasses.dataclass(frozen=True)
class Part:
    """One call of `python -m benchmarks`, in bfloat16 at 224 px.

    Attributes:
      name: of its files.
      benchmarks: to run, in this order.
      model: name in the registry.
      batch_size: images per step.
      candidates: to measure; those of torch only where it is installed.
      seconds: rough duration on an H200 with 16 cores, most of it compilation: an
        estimate. A part starts only if that much time is left.
      flags: additional `XLA_FLAGS`.
      profile: whether to trace ours too.
      limits: whether to measure the device's peak rates too.
    """

    name: str
    benchmarks: tuple[str, ...]
    model: str
    batch_size: int
    candidates: tuple[str, ...]
    seconds: int
    flags: str = ""
    profile: bool = False
    limits: bool = False

    def needs(self, rehearse: bool) -> int:
        """Returns the seconds that must be left for it to start."""
        if rehearse:
            return _REHEARSED_QUICK if self._is_quick else _REHEARSED
        return self.seconds

    def words(self, path: Path, rehearse: bool) -> list[str]:
        """Returns the arguments of `python -m benchmarks`.

        Args:
          path: of the raw results.
          rehearse: whether to measure two small images, and a ResNet-18 of one block
            for ResNet-50.
        """
        model = ["--models", self.model]
        if rehearse and self._is_quick:
            model = []
        size = ["--quick"] if rehearse else ["--batch-size", str(self.batch_size)]
        # Half as many turns as by default, of half the length.
        turns = [] if rehearse else ["--blocks", "7", "--block-seconds", "0.5"]
        return [
            *self.benchmarks,
            *model,
            *("--candidates", ",".join(self.candidates)),
            *("--dtype", "bfloat16"),
            *size,
            *turns,
            "--no-warm-start",
            *(() if self.limits else ("--no-limits",)),
            *(("--profile",) if self.profile else ()),
            *("--json", str(path)),
        ]

    @property
    def _is_quick(self) -> bool:
        return self.model == "resnet50"


_TRAINING, _INFERENCE = ("training",), ("inference",)
_BOTH = (*_TRAINING, *_INFERENCE)
_OURS = ("ours",)
_PEERS = (*_OURS, "torch.compile", "torch channels_last")


def _resnet50(
    name: str,
    benchmarks: tuple[str, ...],
    batch_size: int,
    candidates: tuple[str, ...],
    seconds: int,
    profile: bool = False,
    limits: bool = False,
) -> Part:
    return Part(
        f"resnet50_{name}",
        benchmarks,
        "resnet50",
        batch_size,
        candidates,
        seconds,
        profile=profile,
        limits=limits,
    )


def _flags(name: str, flags: str) -> Part:
    name = f"resnet50_{name}"
    return Part(name, _BOTH, "resnet50", 256, _OURS, 90, flags, profile=True)


def _network(model: str) -> Part:
    candidates = (*_OURS, "torch.compile")
    return Part(model, _BOTH, model, 256, candidates, 180, profile=True)


# What was compiled in one part is loaded in the next, so ours comes first, alone: if
# time runs out among the peers, its figures are there.
PARTS = (
    _resnet50(
        "training",
        _TRAINING,
        256,
        ("ours", "ours augmenting"),
        150,
        profile=True,
        limits=True,
    ),
    _resnet50("inference", _INFERENCE, 256, _OURS, 60, profile=True),
    _resnet50("training_peers", _TRAINING, 256, _PEERS, 120),
    _resnet50("training_512", _TRAINING, 512, _OURS, 70),
    _resnet50("training_1024", _TRAINING, 1024, _OURS, 70),
    _resnet50("inference_1024", _INFERENCE, 1024, _OURS, 45),
    _resnet50("inference_peers", _INFERENCE, 256, _PEERS, 90),
    # cuDNN's convolutions with bias and activation in one kernel; with what precedes
    # and follows them, in XLA's fusions.
    _flags("runtime_fusion", "--xla_gpu_use_runtime_fusion=true"),
    _flags("conv_fusion", "--xla_gpu_experimental_enable_conv_fusion=true"),
    # XLA chooses NHWC for bfloat16 on this device by itself, or should.
    _flags("nhwc", "--xla_gpu_force_conv_nhwc=true"),
    _flags("nchw", "--xla_gpu_force_conv_nchw=true"),
    # 0 takes the libraries' first choice; 1 to 4, the default, choose by trial and
    # differ only in how they fill and check the buffers.
    _flags("autotune_0", "--xla_gpu_autotune_level=0"),
    # 1x1 convolutions as matrix products by cuBLAS alone; no CUDA graphs.
    _flags("no_triton", "--xla_gpu_enable_triton_gemm=false"),
    _flags("no_graphs", "--xla_gpu_enable_command_buffer="),
    _network("efficientnet_b0"),
    _network("densenet121"),
    _network("vgg16"),
    _network("resnet50_dcn"),
)
