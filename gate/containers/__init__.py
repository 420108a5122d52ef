"""Kinds of weight files, consulted in order."""

from gate.checkpoint import Container
from gate.containers.gguf import Gguf
from gate.containers.safetensors import Safetensors

CONTAINERS: tuple[Container, ...] = (Safetensors(), Gguf())
