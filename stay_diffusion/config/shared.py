"""Small groups of options that several commands have: base classes of their sections."""

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True)
class Device:
    device: str = option("", "cpu, cuda, cuda:1 ...; empty: a GPU if there is one")


@dataclass(frozen=True)
class Processes:
    dist_timeout: int = option(600, "seconds that processes wait for one another", least=1)


@dataclass(frozen=True)
class Precision:
    precision: str = option("auto", "auto: bf16 on GPUs that have it, else fp32", ("auto", "fp32", "bf16", "fp16"))
    use_fp16: bool = option(False, "the tradition's name for --precision fp16; fp32 on a CPU", compat=True)
