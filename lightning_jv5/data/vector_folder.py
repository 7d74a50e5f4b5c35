"""The folder that vectors are written to: begun, continued and finished, one whole file after the other."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_jv5.data.cache import atomic_file, write_json
from lightning_jv5.data.vector_manifest import (
    MANIFEST,
    PLAN,
    VectorManifest,
    VectorShard,
    read_manifest,
    read_plan,
    read_shard,
    write_manifest,
)

if TYPE_CHECKING:
    import pyarrow as pa

_NOTES = ".shards"  # a note on each file that is whole, until the manifest holds them all


class VectorFolder:
    """A folder of Parquet files, which has its manifest once all files are there.

    Args:
        path: The folder.
        plan: What it is to hold: a manifest without shards.

    Attributes:
        files: Names of its files; ``datasets`` takes them for the parts of the split ``train``.
    """

    def __init__(self, path: Path, plan: VectorManifest) -> None:
        self.path, self.plan = path, plan
        count = -(-plan.rows // plan.rows_per_shard)
        self.files = [f"train-{shard:05d}-of-{count:05d}.parquet" for shard in range(count)]

    def begin(self) -> None:
        """Make the folder, or make sure that it is this plan's.

        Raises:
            ValueError: If it holds something else, or was begun with another plan; names the difference.
        """
        folder = self.path
        earlier = read_plan(folder)
        if earlier is not None:
            self.plan.check_continues(earlier, folder)
        elif folder.exists() and not folder.is_dir():
            raise ValueError(f"Got output {str(folder)!r}, which is a file; need a folder. Name another.")
        elif found := sorted(path.name for path in folder.glob("*") if not path.name.startswith(f".{PLAN}.")):
            raise ValueError(
                f"Got output {str(folder)!r}, which holds {found[0]}; need an empty folder, or one that embed has "
                "begun. Name another."
            )
        (folder / _NOTES).mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob(".train-*"), *folder.glob(f".{PLAN}.*"), *folder.glob(f".{MANIFEST}.*")]:
            stale.unlink()
        if earlier is None:
            write_manifest(self.plan, folder / PLAN)
        elif (folder / MANIFEST).is_file() and (done := read_manifest(folder)) is not None:
            for shard in done.shards:  # to the notes again, so that a file that got lost since is made anew
                write_json(self._note(shard.file), asdict(shard))

    def check_shared(self, rank: int) -> None:
        """Make sure that a rank sees the folder that rank 0 has begun.

        Raises:
            ValueError: If it does not.
        """
        if not (self.path / PLAN).is_file():
            raise ValueError(
                f"Rank {rank} does not see the folder {str(self.path.absolute())!r} that rank 0 made. "
                "Name one that all machines share."
            )

    def missing(self) -> list[int]:
        """Return which files are not there yet, or not whole."""
        return [shard for shard, file in enumerate(self.files) if not self._is_whole(file)]

    def write(self, shard: int, table: "pa.Table", texts: Sequence[str]) -> None:
        """Write a file, whole or not at all.

        Args:
            shard: Which.
            table: Its rows.
            texts: The columns that repeat and are worth a dictionary: those of the source.
        """
        import pyarrow.parquet as pq
        from datasets import Features

        kinds = Features.from_arrow_schema(table.schema)
        file = self.files[shard]
        with atomic_file(self.path / file) as temporary:
            # A dictionary of vectors would hold each of them once more
            pq.write_table(
                table.replace_schema_metadata(kinds.arrow_schema.metadata),
                temporary,
                compression="zstd",
                use_dictionary=list(texts),
            )
            write_json(self._note(file), asdict(VectorShard.of_file(temporary, table.num_rows, file)))

    def finish(self) -> VectorManifest:
        """Write the manifest.

        Raises:
            ValueError: If a file is not there.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.files)} files are not in {str(self.path)!r}, such as "
                f"{self.files[missing[0]]}. Do all ranks write to the same, shared folder? Run the same command again "
                "to make them."
            )
        shards = tuple(shard for file in self.files if (shard := read_shard(self._note(file))) is not None)
        manifest = replace(self.plan, shards=shards)
        write_manifest(manifest, self.path / MANIFEST)
        for file in self.files:
            self._note(file).unlink()
        (self.path / _NOTES).rmdir()
        return manifest

    def _note(self, file: str) -> Path:
        return self.path / _NOTES / f"{file}.json"

    def _is_whole(self, file: str) -> bool:
        note, path = read_shard(self._note(file)), self.path / file
        return note is not None and path.is_file() and path.stat().st_size == note.bytes
