"""A Grid whose nodes are users: stock strategies sample and average users, whatever nodes host them.

It packs one wire message per SuperNode (what all its users get, once; what each gets of its own; and their ids),
unpacks the reply into one reply per user, sorted by user so that sums do not depend on who answered first, translates
arrays between the strategies' dtype and the wire's, and enters every user's bytes into the ledger.
Wrapping the Grid instead of the Strategy keeps the stock strategies' own sampling and accounting right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fed.communication.ledger import Entry, Ledger
from fed.communication.on_device import NOT_HELD
from fed.plain_text import plain
from server_strategy.grid.edits.broadcasts import Broadcasts
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.message_size import measure, measured_once
from server_strategy.grid.nodes import answered
from server_strategy.grid.packing import by_user, let_go, packed, waves
from server_strategy.grid.work_time import WorkTime
from server_strategy.screening.breach import Breach
from server_strategy.screening.replies import Screen
from server_strategy.screening.values import fields

ERROR_CODE = 100
OnError = Callable[[str, int, str, str], None]


class UserGrid(Grid):
    """Users as nodes 1..U, in the order of `hosts`, over a real Grid of SuperNodes.

    Promise: users are numbered, and replies sorted, by user id, so that no sum depends on where a user lives or on who
    answered first (tests/server_strategy/grid/test_user_grid.py, tests/integration/test_supernodes.py).

    Args:
        grid: the SuperNodes.
        hosts: user id -> id of the SuperNode that hosts it.
        translation: between the strategies' arrays and those on the wire.
        ledger: takes every user's bytes.
        timeout: seconds that `send` waits for replies; None: as long as it takes.
        work: takes simulated nodes' working time; None: the nodes are devices, who do not say it.
        screen: what users' replies are held against; None: their edits alone are.
        broadcasts: where the wire is narrow, what was broadcast and who has it; None: whole edits travel.
        on_error: told the phase, the round, the user and the reason of every reply that is an error or is made one.
    """

    def __init__(
        self,
        grid: Grid,
        hosts: dict[str, int],
        *,
        translation: Translation,
        ledger: Ledger,
        timeout: float | None = None,
        work: WorkTime | None = None,
        screen: Screen | None = None,
        broadcasts: Broadcasts | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self._grid = grid
        self._work, self._screen, self._on_error = work, screen, on_error
        self._broadcasts = broadcasts
        self._names = sorted(hosts)
        self._numbers = {user: number for number, user in enumerate(self._names, 1)}
        self._hosts = hosts
        self.translation = translation
        self._ledger = ledger
        self._timeout = timeout
        self.phase = "stage1"
        self.round = 0
        self.absent: frozenset[str] = frozenset()  # users who get their message and do not answer it

    def number(self, user: str) -> int:
        """The node id that stands for a user."""
        return self._numbers[user]

    @property
    def users(self) -> list[str]:
        """All user ids, sorted."""
        return list(self._names)

    def user(self, number: int) -> str:
        """The user that a node id stands for."""
        return self._names[number - 1]

    def node_of(self, user: str) -> int:
        """The SuperNode that hosts a user."""
        return self._hosts[user]

    def set_run(self, run: object) -> None:
        self._grid.set_run(run)  # type: ignore[arg-type]

    @property
    def run(self):  # type: ignore[no-untyped-def]
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        return list(range(1, len(self._names) + 1))

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise TypeError("a UserGrid sends whole messages: build them with flwr.app.Message")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise TypeError("a UserGrid has no separate push: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise TypeError("a UserGrid has no separate pull: use send_and_receive")

    def send(self, users: Sequence[str], content: RecordDict, message_type: str) -> dict[str, Message]:
        """One content to many users; returns user -> reply, sorted by user. A user who is late is not in it."""
        messages = [Message(content, dst_node_id=self.number(u), message_type=message_type) for u in users]
        replies = self.send_and_receive(messages, timeout=self._timeout)
        return {self.user(reply.metadata.src_node_id): reply for reply in replies}

    def broadcast(self, number: int, arrays: ArrayRecord) -> ArrayRecord:
        """What users have of these arrays once they are broadcast in round `number`: on a narrow wire, as rounded."""
        return self._broadcasts.next(number, arrays) if self._broadcasts else arrays

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Messages to users out, in one request a SuperNode and message type; one reply a user back, by user.

        Who has lost what a change is from is sent the whole edit, once.
        """
        messages = list(messages)  # held together: a record's identity is its key
        replies = self._exchange(messages, timeout)
        lost = {reply.metadata.src_node_id for reply in replies if reply.has_error() and reply.error.reason == NOT_HELD}
        if lost and self._broadcasts:
            for number in lost:
                self._broadcasts.lost(self.user(number))
            again = [message for message in messages if message.metadata.dst_node_id in lost]
            replies = [reply for reply in replies if reply.metadata.src_node_id not in lost]
            replies += self._exchange(again, timeout)
        return sorted(replies, key=lambda message: message.metadata.src_node_id)

    def _exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """The users' replies, in the order in which SuperNodes answered; of large nodes in several waves."""
        translated: dict[int, RecordDict] = {}
        present: list[Message] = []
        for message in messages:
            if (user := self._user_of(message)) in self.absent:
                self._enter(user, "down", packed([self._down(user, message.content, translated)], [user]))
            else:
                present.append(message)
        replies: list[Message] = []
        for wave in waves(present, lambda message: self._hosts[self._user_of(message)]):
            replies += self._wave(wave, translated, timeout)
        return replies

    def _wave(
        self, messages: Sequence[Message], translated: dict[int, RecordDict], timeout: float | None
    ) -> list[Message]:
        """The users' replies to one request a SuperNode and message type."""
        by_node: dict[tuple[int, str], list[Message]] = defaultdict(list)
        for message in messages:
            by_node[self._hosts[self._user_of(message)], message.metadata.message_type].append(message)
        requests: list[Message] = []
        messages_of: list[list[Message]] = []  # by request
        for (node, message_type), user_messages in by_node.items():
            user_messages.sort(key=lambda message: message.metadata.dst_node_id)
            users = [self._user_of(message) for message in user_messages]
            contents = [
                self._down(user, message.content, translated)
                for user, message in zip(users, user_messages, strict=True)
            ]
            requests.append(Message(packed(contents, users), dst_node_id=node, message_type=message_type))
            messages_of.append(user_messages)
            with measured_once():  # what users share is the same object in all their contents
                for user, content in zip(users, contents, strict=True):
                    self._enter(user, "down", packed([content], [user]))
        replies: list[Message] = []
        wire_replies = list(self._grid.send_and_receive(requests, timeout=timeout))
        for place, reply in answered(let_go(wire_replies), requests):
            replies += self._unpack(reply, messages_of[place])
        return replies

    def _user_of(self, message: Message) -> str:
        return self.user(message.metadata.dst_node_id)

    def _unpack(self, reply: Message, messages: Sequence[Message]) -> list[Message]:
        """A SuperNode's reply as one reply to each of the users' messages that its request held.

        Promise: whatever a node sends, the other nodes' replies are what they would have been, and what breaks a rule
        is an error reply with that rule (tests/server_strategy/screening/test_malformed.py).
        """
        if reply.has_error():
            return [self._failed(message, reply.error.reason, reply.error.code) for message in messages]
        try:
            if not reply.has_content():
                raise Breach("a reply must have content")
            if self._work is not None:
                self._work.take(reply.content)
            records = by_user(reply.content, len(messages), self.translation)
        except Breach as breach:
            return [self._failed(message, str(breach)) for message in messages]
        user_replies = []
        for place, message in enumerate(messages):
            try:
                user_replies.append(self._user_reply(message, RecordDict(records[place])))
            except Breach as breach:
                user_replies.append(self._failed(message, str(breach)))
        return user_replies

    def _user_reply(self, message: Message, content: RecordDict) -> Message:
        """One user's records as the reply to its message. Raises Breach."""
        user = self._user_of(message)
        if "error" in content:
            error = fields(fields(content, "a failed reply", ["error"])["error"], "error", ["reason"])
            return self._failed(message, str(error["reason"]))
        if self._screen is not None:
            self._screen.check(message.metadata.message_type, user, content)
        seen = content
        if "arrays" in content:
            seen = RecordDict({**content, "arrays": self.translation.up(content["arrays"], message)})
        self._enter(user, "up", content)
        if self._broadcasts and self._broadcasts.is_now(message.content.array_records.get("arrays")):
            self._broadcasts.took(user)
        return Message(seen, reply_to=message)

    def tell_error(self, user: str, reason: str) -> None:
        """Enter why a user's reply in the present phase is no good."""
        if self._on_error is not None:
            self._on_error(self.phase, self.round, user, reason)

    def _failed(self, message: Message, reason: str | None, code: int = ERROR_CODE) -> Message:
        """An error reply to a user's message; the reason may be anybody's text."""
        reason = plain(reason or "no reason was given")
        self.tell_error(self._user_of(message), reason)
        return Message(Error(code, reason), reply_to=message)

    def _down(self, user: str, content: RecordDict, translated: dict[int, RecordDict]) -> RecordDict:
        """The content as it goes on the wire to a user; a record that several contents share stays one."""
        if "arrays" not in content:
            return content
        arrays = content.array_records["arrays"]
        if self._broadcasts and self._broadcasts.is_now(arrays) and (change := self._broadcasts.change_for(user)):
            return RecordDict({**content, **change})
        if id(arrays) not in translated:
            translated[id(arrays)] = RecordDict({"arrays": self.translation.down(arrays)})
        return RecordDict({**content, **translated[id(arrays)]})

    def _enter(self, user: str, direction: str, content: RecordDict) -> None:
        sizes = measure(content)
        self._ledger.add(Entry(self.phase, self.round, user, direction, sizes.payload, sizes.record, sizes.wire))
