"""Which checkpoints a commit holds, told by the names of its files alone; nothing is opened."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from gate.checkpoint import Container
from gate.checkpoint.weights import SHARD

PICKLES = (".bin", ".pt", ".pth")
PICKLED_MODEL = re.compile(
    r"(?:pytorch_model|diffusion_pytorch_model|adapter_model|model|consolidated)"
    r"(?:[._-].*)?\.(?:bin|pt|pth)"
)
"""Weights by name. Any other pickle counts only beside a config.json: .bin is many things."""

DECLARATIONS = frozenset({"hf_quant_config.json", "quantize_config.json", "quant_config.json"})
INDEXES = (".safetensors.index.json", ".bin.index.json")
PARTS = (".json", ".jinja", ".model", ".tiktoken", ".py")
PART_NAMES = frozenset({"merges.txt", "vocab.txt"})
"""What else is part of a checkpoint: configuration, tokenizer, templates, its own code."""

LINK, SUBMODULE = "120000", "160000"


class Entry(Protocol):
    """A file, link or submodule of a commit, as git and the API list it."""

    @property
    def path(self) -> str:
        """From the root, `/` between names."""
        ...

    @property
    def mode(self) -> str:
        """Six octal digits."""
        ...

    @property
    def type(self) -> str:
        """`blob`, `commit` or `tree`."""
        ...

    @property
    def sha(self) -> str:
        """Name of its content."""
        ...


class Model(NamedTuple):
    """A checkpoint: what its directory holds, or one of several models in there.

    Attributes:
        directory: Empty for the root.
        file: Where a file is a whole model, as GGUF files are, its first; else empty.
    """

    directory: str
    file: str = ""

    @property
    def path(self) -> str:
        """How a user names it."""
        named = f"{self.directory}/{self.file}" if self.directory else self.file
        return named if self.file else self.directory or "."


class Tree:
    """The files of a commit, and to which checkpoints they belong.

    A file belongs to the nearest checkpoint directory above it. Links are files that say where
    they lead, and are not followed; submodules are kept apart.

    Attributes:
        files: Path to the name of its content.
        submodules: Path to the commit.
        models: Directory to the models that it holds.
        owners: Path to the models of which the file is a part.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        containers: Sequence[Container],
        before: Mapping[str, Sequence[Model]] | None = None,
    ) -> None:
        """Sort the entries.

        Args:
            before: `models` of the commit compared with: a checkpoint that has lost its weights
                is one as long as its configuration is there.
        """
        listed = list(entries)
        self.files = {e.path: _content(e) for e in listed if e.type == "blob"}
        self.submodules = {e.path: e.sha for e in listed if e.mode == SUBMODULE}
        self._weights = tuple(container.suffix for container in containers) + PICKLES
        self._whole = tuple(c.suffix for c in containers if c.index_suffix is None)
        self._indexed = tuple(c.suffix for c in containers if c.index_suffix) + INDEXES
        self.models = self._found(before or {})
        self.owners = self._owned()

    def _found(self, before: Mapping[str, Sequence[Model]]) -> dict[str, tuple[Model, ...]]:
        found: dict[str, dict[Model, None]] = {}
        for path in self.files:
            directory, _, name = path.rpartition("/")
            if name.endswith(self._whole):
                found.setdefault(directory, {})[Model(directory, _first(name))] = None
            elif self._decides(directory, name):
                found.setdefault(directory, {})[Model(directory)] = None
        for directory, models in before.items():
            if Model(directory) in models and _beside(directory, "config.json") in self.files:
                found.setdefault(directory, {})[Model(directory)] = None
        return {directory: tuple(models) for directory, models in found.items()}

    def _decides(self, directory: str, name: str) -> bool:
        """Whether a file makes its directory a checkpoint."""
        if name.endswith(PICKLES):
            configured = _beside(directory, "config.json") in self.files
            return configured or PICKLED_MODEL.fullmatch(name) is not None
        return name.endswith(self._indexed) or name in DECLARATIONS

    def _owned(self) -> dict[str, tuple[Model, ...]]:
        nearest: dict[str, str | None] = {}
        owners = {}
        for path in self.files:
            directory, _, name = path.rpartition("/")
            home = self._home(directory, nearest)
            # The root holds everything; only what lies in it is part of a checkpoint there.
            if home is None or (not home and directory) or not self._is_part(name):
                continue
            owners[path] = tuple(self._owners(home, name if directory == home else ""))
        return owners

    def _home(self, directory: str, nearest: dict[str, str | None]) -> str | None:
        """The nearest checkpoint directory from `directory` upwards."""
        passed = []
        at, home = directory, None
        while True:
            if at in self.models:
                home = at
                break
            if at in nearest:
                home = nearest[at]
                break
            passed.append(at)
            if not at:
                break
            at = at.rpartition("/")[0]
        nearest |= dict.fromkeys(passed, home)
        return home

    def _is_part(self, name: str) -> bool:
        return name.endswith((*self._weights, *PARTS)) or name in PART_NAMES

    def _owners(self, home: str, name: str) -> Iterator[Model]:
        """One model of a GGUF file; of any other, the directory's own or all in there."""
        models = self.models[home]
        if name.endswith(self._whole) and name:
            yield Model(home, _first(name))
        elif Model(home) in models:
            yield Model(home)
        else:
            yield from models

    def is_weights(self, path: str) -> bool:
        """Whether a file holds weights, by its name."""
        return path.endswith(self._weights)

    def known(self) -> set[Model]:
        """Every model."""
        return {model for models in self.models.values() for model in models}

    def parts(self) -> dict[Model, list[str]]:
        """Every model with the files that are part of it."""
        found: dict[Model, list[str]] = {}
        for path, models in self.owners.items():
            for model in models:
                found.setdefault(model, []).append(path)
        return found


def replaced(base: Tree, head: Tree) -> dict[Model, Model]:
    """Models of `head` to those of `base` whose place they took.

    A directory's only model may be another file than before: that is a modified checkpoint.
    """
    found = {}
    for directory, models in head.models.items():
        earlier = base.models.get(directory, ())
        if len(models) == len(earlier) == 1 and models != earlier:
            found[models[0]] = earlier[0]
    return found


def shown(model: Model, tree: Tree) -> str:
    """How a user names a checkpoint: its directory, unless that holds several."""
    alone = len(tree.models.get(model.directory, ())) == 1
    return Model(model.directory).path if alone else model.path


def submodules(base: Tree, head: Tree) -> Set[str]:
    """Submodules that were moved to another commit."""
    return {path for path, _ in head.submodules.items() ^ base.submodules.items()}


def is_link(content: str) -> bool:
    """Whether the name of a content in `Tree.files` is that of a link."""
    return content.startswith("link ")


def _content(entry: Entry) -> str:
    """Names the content; a link is never equal to a file with the same text."""
    return f"link {entry.sha}" if entry.mode == LINK else entry.sha


def _first(name: str) -> str:
    """The first file of a numbered series; any other file is a model by itself."""
    stem, dot, suffix = name.rpartition(".")
    numbered = SHARD.fullmatch(f"{stem}.")
    return f"{numbered['stem']}-00001-of-{numbered['total']}{dot}{suffix}" if numbered else name


def _beside(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
