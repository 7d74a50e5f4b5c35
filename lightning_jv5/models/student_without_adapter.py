"""The student itself with its adapter switched off: a teacher that takes no memory."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.settings import EncoderSettings
from lightning_jv5.models.teacher import Teacher
from lightning_jv5.models.text_encoder import TextEncoder, evaluating
from lightning_jv5.models.tokenization import Tokenization


class StudentWithoutAdapter(Teacher):
    """The teacher of arXiv:2602.15547 eq. 8: the frozen model under the student's adapter, on the student's tokens.

    It computes in evaluation mode, without gradients, with the RoPE theta of the student's training. Its vectors are
    the student's own, so they cannot be precomputed under a name; for that give a :class:`Teacher` the folder that the
    student started from.

    Raises:
        ValueError: When it is bound to a student that has no adapter.
    """

    reads_student_tokens = True

    def __init__(self) -> None:
        nn.Module.__init__(self)
        nn.Module.train(self, False)

    def bind(self, student: nn.Module) -> None:
        """Take the student; the module that owns both calls it once."""
        if not isinstance(student, Embedder) or student.adapter is None:
            raise ValueError(
                "Got the teacher StudentWithoutAdapter for a student without an adapter. Give the student an adapter, "
                "or use lightning_jv5.Teacher with the path of a model."
            )
        self.__dict__["_student"] = student  # past nn.Module.__setattr__: it is registered once, in the module

    @property
    def student(self) -> Embedder:
        """The student, once there is one."""
        if "_student" not in self.__dict__:
            raise ValueError("Got StudentWithoutAdapter without a student. Give it to an EmbeddingModule as teacher.")
        student: Embedder = self.__dict__["_student"]
        return student

    @property
    def embedder(self) -> TextEncoder:
        """The student; :meth:`forward` and :meth:`encode` are what computes without its adapter."""
        return self.student

    @property
    def settings(self) -> EncoderSettings:
        """None of its own.

        Raises:
            ValueError: Always.
        """
        self._has_no_name()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory: as the student's are."""
        return True

    @property
    def tokenization(self) -> Tokenization:
        """The student's."""
        return self.student.tokenization

    @property
    def dim(self) -> int:
        """The student's."""
        return self.student.dim

    @property
    def weights_identity(self) -> list[str]:
        """None: its vectors have no name.

        Raises:
            ValueError: Always.
        """
        self._has_no_name()

    @property
    def fingerprint(self) -> str:
        """None: its vectors have no name.

        Raises:
            ValueError: Always.
        """
        self._has_no_name()

    def _has_no_name(self) -> NoReturn:
        raise ValueError(
            "Got StudentWithoutAdapter where a teacher is needed whose vectors can be named and kept. Use "
            "lightning_jv5.Teacher with the path that the student started from."
        )

    def forward(self, texts: RaggedTexts) -> Tensor:
        """Embed texts of the student's tokens without gradients: unit length, float32, shape ``(texts, dim)``."""
        student = self.student
        training = student.training
        # The mode of the student itself decides its theta, and nothing else in it
        with evaluating(student), student.without_adapter(), torch.no_grad():
            student.training = training
            embeddings: Tensor = student(texts)
        return embeddings

    def encode(
        self, texts: Sequence[str], role: str = "document", *, truncate_dim: int | None = None, progress: bool = False
    ) -> Tensor:
        """Embed strings: as :meth:`Embedder.encode`."""
        with self.student.without_adapter():
            return self.student.encode(texts, role, truncate_dim=truncate_dim, progress=progress)
