"""Real text that is on every machine: the docstrings of installed packages, first line -> body."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lightning_jv5.data.arrow_cache import cached_rows
from lightning_jv5.data.cache import atomic_folder, cache_folder, fingerprint
from lightning_jv5.data.source import Source, did_you_mean, first_rows
from lightning_jv5.rebuildable import Plain

if TYPE_CHECKING:
    import datasets

# Raise it whenever the pairs change: sets cached by older code are then built anew.
_FORMAT = 2

# Each is the standard library or comes with our own dependencies. Parts are named where the whole is large and says
# little (kernels, model zoos).
DEFAULT_PACKAGES = (
    *("stdlib", "numpy", "torchmetrics", "lightning", "datasets", "peft"),
    *(
        "sklearn",
        "scipy",
        "pandas",
        "matplotlib",
        "networkx",
        "huggingface_hub",
        "jsonargparse",
        "fsspec",
        "tensorboard",
    ),
    *("torch.nn", "torch.optim", "torch.distributions", "torch.utils", "torch.distributed", "torch.autograd"),
    *("transformers.generation", "transformers.utils", "transformers.integrations"),
    *("accelerate", "jinja2", "PIL", "joblib", "werkzeug", "narwhals", "click"),
)


class Pair(NamedTuple):
    """One docstring, taken apart.

    Attributes:
        query: Its summary sentence.
        document: The prose that follows.
        module: Dotted path of the module it was found in.
        name: Qualified name inside the module; empty for the module's own docstring.
    """

    query: str
    document: str
    module: str
    name: str


class Docstrings(Source):
    """Pairs (summary sentence -> rest of the text) from the docstrings of installed packages.

    The sources are parsed, never imported. Whole modules are held out, and training pairs that nearly repeat a held-out
    one are removed: packages carry the same text in sibling modules. The result is cached; it depends on the versions
    of the installed packages.

    Rows have ``query``, ``document``, ``module`` and ``name``; no two share a query or a document.

    Args:
        split: ``"train"``, or ``"heldout"`` for pairs to evaluate on.
        rows: How many rows, from the first; all if left out. Training rows are in a pseudo-random order, so a part is
            as wide a mix as the whole.
        packages: Import names, ``"stdlib"`` for the standard library; a dotted name is a part of a package.
        seed: Picks the order of the training rows; held-out rows are the same for all seeds.
        heldout: How many pairs are held out.
    """

    def __init__(
        self,
        split: Literal["train", "heldout"] = "train",
        *,
        rows: int | None = None,
        packages: list[str] | None = None,
        seed: int = 0,
        heldout: int = 500,
    ) -> None:
        if split not in {"train", "heldout"}:
            raise ValueError(f"Got split={split!r}; need 'train' or 'heldout'.")
        if heldout < 1:
            raise ValueError(f"Got heldout={heldout}; need at least 1 held-out pair.")
        self.split = split
        self.rows = rows
        self.packages = list(DEFAULT_PACKAGES) if packages is None else packages
        self.seed = seed
        self.heldout = heldout

    def load(self) -> "datasets.Dataset":
        """Return the rows of the split, building and caching both splits if they are not there yet.

        Raises:
            ValueError: If a package is not installed, or there are fewer rows than asked for.
        """
        from datasets import Dataset

        folders = {name: _locate(name) for name in self.packages}
        key = fingerprint("docstrings", _FORMAT, list(sys.version_info[:3]), _versions(folders), self.heldout)
        built = cache_folder() / f"docstrings-{key}"
        if not built.is_dir():
            train, heldout = split_pairs(pairs_in(docstring_pairs(self.packages)), self.heldout, self.packages)
            with atomic_folder(built) as folder:
                _write(train, folder / "train.arrow")
                _write(heldout, folder / "heldout.arrow")
        path = built / "heldout.arrow" if self.split == "heldout" else _shuffled(built, self.seed)
        dataset = Dataset.from_file(str(path))
        dataset._fingerprint = fingerprint(key, self.seed, self.split)  # datasets' own changes when the file is rebuilt
        if self.rows is not None and self.rows > len(dataset):
            raise ValueError(
                f"Got rows={self.rows}, but the docstrings of {', '.join(self.packages)} give {len(dataset)} rows for "
                f"split={self.split!r} with heldout={self.heldout}. Ask for fewer rows, or add packages: "
                f"{_more_packages(self.packages)}."
            )
        return first_rows(dataset, self.rows, origin="docstrings")


def docstring_pairs(packages: Sequence[str]) -> "datasets.Dataset":
    """Return all pairs of the packages, no two with a title or body in common; parsed once and kept.

    Args:
        packages: As for :class:`Docstrings`.

    Returns:
        The pairs by module and name; a column for each field of :class:`Pair`.

    Raises:
        ValueError: If a package is not installed.
    """
    import pyarrow as pa

    folders = {name: _locate(name) for name in packages}
    key = fingerprint("docstring pairs", _FORMAT, list(sys.version_info[:3]), _versions(folders))
    schema = pa.schema({field: pa.string() for field in Pair._fields})
    return cached_rows("docstring_pairs", key, schema, lambda: [_table(list(_distinct(_read(folders))))])


def pairs_in(rows: "datasets.Dataset") -> list[Pair]:
    """Return what :func:`docstring_pairs` keeps as a data set."""
    return [Pair(*texts) for texts in zip(*(rows[field][:] for field in Pair._fields), strict=True)]


def split_pairs(pairs: Iterable[Pair], heldout: int, packages: Sequence[str] = ()) -> tuple[list[Pair], list[Pair]]:
    """Hold out whole modules, and take what nearly repeats a held-out pair out of the rest.

    Args:
        pairs: The pairs of all modules, in any order.
        heldout: How many pairs to hold out; no module gives more than one in 70 of them (but up to 5).
        packages: Where the pairs are from, for the error's text.

    Returns:
        The training pairs and exactly ``heldout`` held-out pairs. Pairs of held-out modules that were not needed are in
        neither.

    Raises:
        ValueError: If there are too few pairs to hold out that many and have any left to train on.
    """
    modules: dict[str, list[Pair]] = defaultdict(list)
    for pair in _distinct(pairs):
        modules[pair.module].append(pair)
    most = max(5, heldout // 70)
    copies = NearCopies()
    chosen: list[Pair] = []
    for module in in_order_of_holding_out(modules):
        if len(chosen) == heldout:
            break
        taken = 0
        for pair in sorted(modules.pop(module), key=lambda pair: _keyed_hash("held-out pair", pair.query)):
            if taken < most and len(chosen) < heldout and not copies.holds(pair):
                copies.add(pair)
                chosen.append(pair)
                taken += 1
    train = [pair for module in sorted(modules) for pair in modules[module] if not copies.holds(pair)]
    if len(chosen) < heldout or not train:
        raise ValueError(
            f"Got heldout={heldout}, but {', '.join(packages) or 'the pairs'} give {len(chosen)} pairs to hold out and "
            f"{len(train)} to train on. Hold out fewer, or add packages: {_more_packages(packages)}."
        )
    chosen.sort(key=lambda pair: _keyed_hash("held-out pair", pair.query))
    return train, chosen


def in_order_of_holding_out(modules: Iterable[str]) -> list[str]:
    """Return modules in the order in which they are held out: whoever holds more out, holds these out too."""
    return sorted(modules, key=lambda module: _keyed_hash("held-out module", module))


def _more_packages(packages: Sequence[str]) -> str:
    return ", ".join(name for name in DEFAULT_PACKAGES if name not in packages) or "any other that is installed"


class NearCopies:
    """Finds pairs that nearly repeat one of those added: by much the same title, or by a shared stretch of body.

    >>> copies = NearCopies()
    >>> copies.add(Pair("Return the mean.", "The sum of all values is divided by their number.", "package.a", "mean"))
    >>> copies.holds(Pair("Returns a mean", "Something else entirely, with no word in common.", "package.b", "average"))
    True

    Args:
        shared_body: Bodies that share more than this part of the shorter one's 8-word stretches are copies.
        shared_title: Titles that share at least this part of their words (Jaccard) are copies.
    """

    def __init__(self, shared_body: float = 0.3, shared_title: float = 0.75) -> None:
        self.shared_body = shared_body
        self.shared_title = shared_title
        self._by_title_word: dict[str, list[int]] = defaultdict(list)
        self._by_stretch: dict[str, list[int]] = defaultdict(list)
        self._sizes: list[tuple[int, int]] = []

    def add(self, pair: Pair) -> None:
        """Remember a pair."""
        title, body = _title_words(pair.query), _stretches(pair.document)
        for word in title:
            self._by_title_word[word].append(len(self._sizes))
        for stretch in body:
            self._by_stretch[stretch].append(len(self._sizes))
        self._sizes.append((len(title), len(body)))

    def holds(self, pair: Pair) -> bool:
        """Say whether the pair nearly repeats one that was added."""
        body = _stretches(pair.document)
        shared = Counter(number for stretch in body for number in self._by_stretch.get(stretch, ()))
        if any(count > self.shared_body * min(len(body), self._sizes[number][1]) for number, count in shared.items()):
            return True
        title = _title_words(pair.query)
        shared = Counter(number for word in title for number in self._by_title_word.get(word, ()))
        sizes = self._sizes
        return any(
            count >= self.shared_title * (len(title) + sizes[number][0] - count) for number, count in shared.items()
        )


_STOP_WORD = re.compile(r"an?|and|are|as|at|be|by|for|from|if|in|into|is|its?|o[fnr]|that|the|this|to|with")


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _title_words(title: str) -> set[str]:
    words = _words(title)
    # "Returns the means" is "Return the mean"; a title of stop words alone keeps them
    return {word.rstrip("s") or word for word in words if not _STOP_WORD.fullmatch(word)} or set(words)


def _stretches(body: str) -> set[str]:
    words = _words(body)
    return {" ".join(words[start : start + 8]) for start in range(max(1, len(words) - 7))}


def _distinct(pairs: Iterable[Pair]) -> Iterator[Pair]:
    titles: set[str] = set()
    bodies: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: (pair.module, pair.name, pair.query)):
        title, body = " ".join(_words(pair.query)), " ".join(_words(pair.document))
        if title not in titles and body not in bodies:
            titles.add(title)
            bodies.add(body)
            yield pair


def _keyed_hash(key: str, text: str) -> bytes:
    return hashlib.blake2b(f"{key}\n{text}".encode(), digest_size=8).digest()


def _write(pairs: Sequence[Pair], path: Path) -> None:
    _write_table(_table(pairs), path)


def _table(pairs: Sequence[Pair]) -> Any:
    import pyarrow as pa

    texts = pa.string()
    return pa.table({field: pa.array([getattr(pair, field) for pair in pairs], texts) for field in Pair._fields})


def _write_table(table: Any, path: Path) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)


def _shuffled(built: Path, seed: int) -> Path:
    """Return the file of training rows in the order of a seed, written once: an index over it would slow every read."""
    from datasets import Dataset

    final = built / f"train-seed{seed}"
    if not final.is_dir():
        table = Dataset.from_file(str(built / "train.arrow")).data.table
        hashes = [_keyed_hash(f"order {seed}", query) for query in table["query"].to_pylist()]
        with atomic_folder(final) as folder:
            _write_table(table.take(sorted(range(len(hashes)), key=hashes.__getitem__)), folder / "rows.arrow")
    return final / "rows.arrow"


def _locate(package: str) -> Path:
    """Return a package's folder or single file, without importing it."""
    if package == "stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top) if top.isidentifier() else None  # of a dotted name it would import the parents
    roots = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    if spec and spec.origin and not roots:
        roots = [Path(spec.origin)]
    for root in roots:
        inside = root.joinpath(*rest)
        for found in (inside, inside.with_suffix(".py")):
            if found.is_dir() or (found.suffix == ".py" and found.is_file()):
                return found
    known = {"stdlib", *DEFAULT_PACKAGES, *importlib.metadata.packages_distributions()}
    raise ValueError(
        f"Got package {package!r}, of which no Python source is installed; need 'stdlib' or import names of installed "
        f"packages.{did_you_mean(package, known)} Install it, or take it out of packages."
    )


def _versions(folders: dict[str, Path]) -> list[Plain]:
    return [[name, _version(name, folder)] for name, folder in sorted(folders.items())]


def _version(package: str, folder: Path) -> Plain:
    top = package.split(".", maxsplit=1)[0]
    if top == "stdlib":
        return list(sys.version_info[:3])
    for name in (top, _DISTRIBUTIONS.get(top, top)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    # A folder on sys.path, or a distribution of another name: its files' sizes and times stand in for a version.
    stats = [(str(path), path.stat()) for path in _files(folder)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "PyYAML"}

_SKIPPED_FOLDERS = re.compile(
    r"_?(tests?|testing|_?test_.*|vendor(ed)?|externals?|extern|third_party|site-packages|dist-packages|__pycache__|"
    r"idle_test|idlelib|lib2to3|turtledemo|tkinter|pydoc_data|ensurepip|benchmarks?|encodings)"
)
_SKIPPED_FILES = re.compile(r"test_.*|.*_tests?|conftest|.*_pb2.*|_?version|setup")
_GENERATED = re.compile(rb"(?i)@generated|auto[- ]?generated|generated automatically|do not edit|generated by")


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if not _SKIPPED_FOLDERS.fullmatch(entry.name):
                found += _files(entry)
        elif entry.suffix == ".py" and not _SKIPPED_FILES.fullmatch(entry.stem):
            found.append(entry)
    return found


def _read(folders: dict[str, Path]) -> list[Pair]:
    from tqdm.auto import tqdm

    files = [(name, folder, path) for name, folder in folders.items() for path in _files(folder)]
    pairs: list[Pair] = []
    for name, folder, path in tqdm(files, desc="Reading docstrings", unit="file"):
        inside = path.relative_to(folder).with_suffix("").parts if folder.is_dir() else ()
        parts = [*([] if name == "stdlib" else [name]), *(part for part in inside if part != "__init__")]
        pairs += read_file(path, ".".join(parts))
    return pairs


def read_file(path: Path, module: str) -> list[Pair]:
    """Return the pairs of one source file; none where it does not parse or was generated.

    Args:
        path: The Python source file; it is parsed, not run.
        module: Its dotted path.
    """
    source = path.read_bytes()
    if _GENERATED.search(source[:600]):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    taken_apart = ((name, split_docstring(docstring)) for name, docstring in _docstrings(tree, ""))
    return [Pair(*parts, module, name) for name, parts in taken_apart if parts is not None]


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    if text := ast.get_docstring(node, clean=False):
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}" if name else child.name)


def split_docstring(docstring: str) -> tuple[str, str] | None:
    r"""Take a docstring apart into its summary sentence and the prose that follows, without markup, code or tables.

    Args:
        docstring: As written in the source, indented or not.

    Returns:
        The title (3 to 30 words) and the body (10 words to 2,000 characters), or None where the docstring has no such
        two, or the body begins with the title.

    >>> split_docstring("Return the larger value.\n\nBoth are compared with ``>``, so all that have an order will do.")
    ('Return the larger value.', 'Both are compared with >, so all that have an order will do.')
    """
    paragraphs = [_plain(text) for text in _paragraphs(inspect.cleandoc(docstring).splitlines())]
    while paragraphs and (not paragraphs[0] or _SIGNATURE.fullmatch(paragraphs[0])):
        paragraphs.pop(0)
    if not paragraphs:
        return None
    title, *sentences = _sentences(paragraphs[0])
    for paragraph in paragraphs[1:]:
        if _is_prose(paragraph):
            sentences += _sentences(paragraph)
    body = ""
    for sentence in sentences:
        if not _POINTER.match(sentence) and len(body) + len(sentence) < 2000:
            body = f"{body} {sentence}".lstrip()
    if not 3 <= len(title.split()) <= 30 or not _is_prose(title) or _UNWANTED_TITLE.search(title):
        return None
    if len(_words(body)) < 10 or not _is_prose(body) or " ".join(_words(body)).startswith(" ".join(_words(title))):
        return None
    return title, body


_SIGNATURE = re.compile(r"[\w.,=\s\[\]]*\w\(.*\)(\s*(->|=|:).*)?|\w+")
_POINTER = re.compile(  # leads to what is not here: another page, a table, code, a formula
    r"(Read more|See also|See|Refer to|For (more|further|full)|More (information|details)|Please (see|refer))\b.{,200}$"
    r"|.*[:\0].*$(?<=[:\0])|.*\0"
)
_UNWANTED_TITLE = re.compile(
    r"(?i)copyright|licen[sc]e|^(deprecated|alias|tests?|todo|fixme|see|same as|refer|internal|overrid\w+)\b|"
    r"[=>\0]|\bself\b"
)
_PROSE_SECTION = re.compile(r"notes?|warnings?|tip|important|caution|hint|attention|description|summary")
_TABLE_SECTION = re.compile(
    r"(optional_|required_|keyword_|class_|instance_|other_|default_|environment_)?(args|arguments|attributes|"
    r"parameters?|params|properties|variables|keywords|kwargs|kwds)|(example_|sample_|basic_|command_line_)?(usage|use|examples?)|"
    r"raises|returns?|return_values?|yields?|receives|warns|inputs?|outputs?|shapes?|references?|see_also|methods|todo|"
    r"authors?|signature|functions|classes|exceptions|keys|constants|options|exports|contents"
)
_UNDERLINE = re.compile(r"([-=~^*#+`'\"])\1{2,}")
_DIRECTIVE = re.compile(r"\.\.\s+(?:([\w:+-]+)\s*::)?\s*(.*)")
_FIELD = re.compile(r"[:@]\w+\b[^:]*:.*|@\w+.*|[\w*, ]+ : .*|`?\w+`? ?\([^)]*\):.*")
_BARE_FIELD = re.compile(r"[a-z_]\w*: ")
_BULLET = re.compile(r"([-*+\u2022]|\(?[0-9a-z]{1,2}[.)]|#\.)\s+")
_TABLE = re.compile(r".*\|.*\|.*|[+=\-| ]{4,}|.*\S {3,}\S.*")
_CODE = re.compile(
    r"(>>>|\.\.\. |In \[|\$ |%|import |from \S+ import |@|def |class \w+[(:]|return )|[\w.]+ ?=[^=].*|.*[;{]$|"
    r"[\w.]+\(.*\)$"
)


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    """Yield each paragraph of prose as one line, still with its inline markup."""
    paragraph: list[str] = []
    skip_indent: int | None = None  # what is indented deeper than this is left out
    skip_section = skip_to_blank = fenced = False
    for number, line in enumerate(lines):
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        fence = text.startswith(("```", "~~~"))
        fenced ^= fence
        heading = text.strip("*#_: ").lower().replace(" ", "_")
        underlined = bool(_UNDERLINE.fullmatch(following)) and number > 0
        is_table = bool(_TABLE_SECTION.fullmatch(heading))
        marked = text.endswith((":", "**")) and bool(is_table or _PROSE_SECTION.fullmatch(heading))
        headed = underlined or marked or text.startswith(("# ", "##"))
        bullet = _BULLET.match(text)
        if paragraph and (not text or fence or headed or bullet or _UNDERLINE.fullmatch(text)):
            yield " ".join(paragraph)
            paragraph = []
        if fenced or fence or not text or _UNDERLINE.fullmatch(text):
            skip_to_blank = False
            continue
        skip_indent = None if skip_indent is None or indent <= skip_indent else skip_indent
        if skip_indent is None and headed:
            skip_section = is_table and not text.endswith(":")
            skip_indent = indent if is_table else None
            continue
        if skip_section or skip_to_blank or skip_indent is not None:
            continue
        if directive := _DIRECTIVE.match(text):
            if not _PROSE_SECTION.fullmatch(directive[1] or ""):
                skip_indent = indent
                continue
            text = directive[2]
        if _FIELD.match(text) or (not paragraph and _BARE_FIELD.match(text)):
            skip_indent = indent
        elif _CODE.match(text) and not paragraph and number > 0:
            skip_to_blank = True
        elif not _TABLE.fullmatch(text):
            text = text[bullet.end() :] if bullet else text
            if text.endswith("::"):
                skip_indent = indent
            paragraph.append(text)
    if paragraph:
        yield " ".join(paragraph)


_INLINE = (  # markup of reStructuredText, Markdown and Doxygen, and what stays of it
    (re.compile(r":math:`[^`]*`|\$[^$]+\$"), "\0"),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)|</?\w+( [^<>]*)?/?>"), ""),
    (re.compile(r":[\w:+-]+:`([^`<]+?)\s*<[^`>]*>`"), r"\1"),
    (re.compile(r":[\w:+-]+:`[~!]?(?:[\w.]+\.)?([^`]+)`"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),
    (re.compile(r"\s*\[(?:[\d#*, ]+|[A-Z][A-Za-z+]*\d{2,4}\w?|#\w+)\]_?"), ""),
    (re.compile(r"\[([^\]\[]+)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\[`~?(?:[\w.]+\.)?([^\]`]+)`\]|\|\w+\||\[~\w+\]"), r"\1"),
    (re.compile(r"https?://\S+"), "\0"),
    (re.compile(r"``?([^`]*)`?`_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*?(?=\S)([^*]+?)(?<=\S)\*\*?(?![\w*])"), r"\1"),
    (re.compile(r"\(\s*\)|\\(?=\W)"), ""),
    (re.compile(r"[\u2018\u2019]"), "'"),
    (re.compile(r"[\u201c\u201d]"), '"'),
    (re.compile(r"[\u2013\u2014]"), "-"),
    (re.compile(r"\s+(?=[.,;:)!?](\s|$))"), ""),
    (re.compile(r"\s+"), " "),
)


def _plain(text: str) -> str:
    for markup, kept in _INLINE:
        text = markup.sub(kept, text)
    return text.strip(" -*")


def _sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


_SENTENCE_END = re.compile(r"(?<=[a-z0-9)'\"][.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.) (?=[A-Z\"'(])")


def _is_prose(text: str) -> bool:
    letters = len(re.findall(r"[A-Za-z ]", text))
    return letters >= 0.85 * len(text) and "  " not in text and " " in text
