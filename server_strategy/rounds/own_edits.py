"""The step of methods that send every user an edit of its own, made of what the users sent last (`Method.for_each`)."""

from __future__ import annotations

from collections.abc import Hashable

from flwr.app import Message

from fed.methods.method import Method, Tensors
from server_strategy.grid.edits.translation import Translation
from server_strategy.rounds.step import Round, Step


class OwnEdits(Step):
    """Keeps each user's last edit; from the second round on, a user that the method has an edit for is sent that."""

    def __init__(self, method: Method, translation: Translation) -> None:
        self._method, self._translation = method, translation
        self._latest: dict[Hashable, Tensors] = {}  # user's number -> the edit that it sent last

    def before_messages(self, current: Round, messages: list[Message]) -> list[Message]:
        if not self._latest:
            return messages
        users = [message.metadata.dst_node_id for message in messages]
        user_edits = self._method.for_each(users, self._latest, current.start)
        for user, message in zip(users, messages, strict=True):
            if user in user_edits:
                self._translation.put_edit(message, user_edits[user])
        return messages

    def after_replies(self, current: Round, replies: list[Message]) -> list[Message]:
        self._latest |= {reply.metadata.src_node_id: self._translation.edit_of(reply) for reply in replies}
        return replies
