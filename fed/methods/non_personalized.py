"""The base model as it is: nothing federated, nothing private, nothing trained (PerFit, section 4).

    non-personalized   the bare query
    rag                retrieved items of the user's history before it (`retrieved`; at least 1)
    pag                a profile text of the user before that (`profile`)

The three differ in the prompt alone, and the prompt is the run's (`fed.prompts.before_rows`): the same two keys put the
same words before the rows of any method that trains, which is OPPU's +RAG and +PAG.
"""

from __future__ import annotations

from collections.abc import Mapping

from fed.answering.reader import Reader
from fed.base.model import BaseModel
from fed.methods.edit_reader import EditReader
from fed.methods.method import Method, Tensors


class NonPersonalized(Method):
    """The frozen base. Of the four arms there is `base` alone."""

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        return EditReader(self, base)
