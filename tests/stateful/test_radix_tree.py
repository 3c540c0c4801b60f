"""The radix tree and the tree of tokens against a plain dict, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshlib.errors import LimitError
from meshlib.hashing import hash64, hash64_text
from meshlib.prefix import Entry, Match, Placement, RadixTree, TokenTree

TENANTS = st.sampled_from(["v", "w", "ẅ"])
TEXTS = st.one_of(
    st.sampled_from(["a", "ab", "abb", "aba", "abbab", "b"]),
    st.text(alphabet="ab", min_size=1, max_size=7),
    st.text(alphabet="a\N{EURO SIGN}\U0001f600\ud800", min_size=1, max_size=5),
    # Characters that differ in the first, in the last or in a middle byte of their UTF-8.
    st.text(alphabet="\xe9\xe8\u4e2d\u4e2e\U0001f600\U0001f601", min_size=1, max_size=4),
    st.integers(60, 70).map(lambda length: "ab" * length),
)
ACCESSES = st.integers(0, 12)


def shared_length(one: str, other: str) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length


class RadixTreeMachine(RuleBasedStateMachine):
    """Every step is made on the tree and on a dict of (text, tenant) to access."""

    def new_tree(self, characters_max: int) -> RadixTree:
        return RadixTree(characters_max=characters_max)

    def hash_of(self, text: str) -> int:
        return hash64_text(text)

    @initialize(characters_max=st.sampled_from([200, 10_000]))
    def make(self, characters_max: int) -> None:
        self.tree = self.new_tree(characters_max)
        self.model: dict[tuple[str, str], int] = {}
        self.take_hold_of_the_content()

    def characters(self, texts: set[str]) -> int:
        return len({text[:length] for text in texts for length in range(1, len(text) + 1)})

    def of(self, tenant: str) -> dict[str, int]:
        return {text: access for (text, owner), access in self.model.items() if owner == tenant}

    @rule(entries=st.lists(st.tuples(TEXTS, TENANTS, ACCESSES), min_size=1, max_size=6))
    def insert_some(self, entries: list[tuple[str, str, int]]) -> None:
        for text, tenant, access in entries:
            self.insert(text, tenant, access)

    @rule(data=st.data(), rise=st.integers(-2, 5))
    def touch(self, data: st.DataObject, rise: int) -> None:
        if self.model:
            text, tenant = data.draw(st.sampled_from(sorted(self.model)))
            self.insert(text, tenant, max(0, self.model[text, tenant] + rise))

    def insert(self, text: str, tenant: str, access: int) -> None:
        previous = self.model.get((text, tenant))
        texts = {known for known, _ in self.model} | {text}
        if self.characters(texts) > self.tree.characters_max:
            try:
                self.tree.insert(text, tenant=tenant, access=access)
            except LimitError:
                return
            raise AssertionError("the tree grew over its size")
        is_new = previous is None or previous < access
        assert is_new == self.tree.insert(text, tenant=tenant, access=access)
        if is_new:
            self.model[text, tenant] = access

    @rule(text=TEXTS, tenant=st.one_of(st.none(), TENANTS), access=ACCESSES)
    def match_and_insert(self, text: str, tenant: str | None, access: int) -> None:
        expected, seen = self.tree.match(text), list[Match]()
        texts = {known for known, _ in self.model} | {text}
        if self.characters(texts) > self.tree.characters_max:
            return

        def choose(match: Match) -> str | None:
            seen.append(match)
            return tenant

        match, placement = self.tree.match_and_insert(text, choose, access=access)
        assert expected == match
        assert [expected] == seen
        if tenant is None:
            assert placement is None
            return
        previous = self.model.get((text, tenant))
        assert Placement(self.hash_of(text), previous) == placement
        self.model[text, tenant] = access if previous is None else max(access, previous)

    @rule(text=TEXTS, tenant=TENANTS, accesses=st.lists(ACCESSES, min_size=2, max_size=6))
    def insert_turn_by_turn(self, text: str, tenant: str, accesses: list[int]) -> None:
        for turn, access in enumerate(accesses):
            self.insert(text * (turn + 1), tenant, access)

    @rule(data=st.data(), text=TEXTS, tenant=TENANTS)
    def remove(self, data: st.DataObject, text: str, tenant: str) -> None:
        if len(self.model) > 0 and data.draw(st.booleans()):
            text, tenant = data.draw(st.sampled_from(sorted(self.model)))
        expected = self.model.pop((text, tenant), None) is not None
        assert expected == self.tree.remove(text, tenant=tenant)

    @rule(tenant=TENANTS, floor=ACCESSES)
    def evict(self, tenant: str, floor: int) -> None:
        expected = [
            (self.hash_of(text), access)
            for text, access in self.of(tenant).items()
            if access <= floor
        ]
        expected.sort(key=lambda pair: (pair[1], pair[0]))
        assert expected == self.tree.evict(tenant, floor=floor)
        self.model = {
            key: access for key, access in self.model.items() if key[1] != tenant or access > floor
        }

    @rule(tenant=TENANTS)
    def remove_tenant(self, tenant: str) -> None:
        assert len(self.of(tenant)) == self.tree.remove_tenant(tenant)
        self.model = {key: access for key, access in self.model.items() if key[1] != tenant}

    @rule()
    def take_hold_of_the_content(self) -> None:
        self.held, self.expected = self.tree.copy_content(), self.model.copy()

    @rule()
    def read_what_was_held(self) -> None:
        found = {
            (text, tenant): access
            for tenant in self.held.tenants()
            for text, access in self.held.entries(tenant)
        }
        assert self.expected == found
        keys = filter(None, self.held.entries_by_key(buckets=range(256)))
        assert found == {(text, t): access for text, each in keys for t, access in each}

    @rule()
    def go_on_with_a_copy(self) -> None:
        original = self.tree
        self.tree = original.copy()
        original.remove_tenant("w")
        original._check()

    @rule(text=TEXTS, data=st.data())
    def match(self, text: str, data: st.DataObject) -> None:
        if len(self.model) > 0 and data.draw(st.booleans()):
            text = data.draw(st.sampled_from(sorted(self.model)))[0] + text
        reached: dict[str, int] = {}
        for known, tenant in self.model:
            length = shared_length(known, text)
            if length:
                reached[tenant] = max(length, reached.get(tenant, 0))
        longest = max(reached.values(), default=0)
        holders = tuple(sorted(tenant for tenant in reached if reached[tenant] == longest))
        assert (holders, longest) == self.tree.match(text)
        assert reached == self.tree.match_each(text)
        for tenant in ("v", "w", "ẅ"):
            assert reached.get(tenant, 0) == self.tree.match_tenant(text, tenant=tenant)

    @rule(tenant=TENANTS)
    def oldest(self, tenant: str) -> None:
        accesses = self.of(tenant)
        found = self.tree.oldest(tenant)
        if not accesses:
            assert found is None
        else:
            assert found is not None
            assert accesses[found.text] == found.access == min(accesses.values())

    @rule()
    def oldest_of_all(self) -> None:
        accesses = [(access, tenant) for (_, tenant), access in self.model.items()]
        found = self.tree.oldest_tenant()
        assert (found and (found[1], found[0])) == min(accesses, default=None)

    @rule(share=st.floats(0, 1))
    def floor_for(self, share: float) -> None:
        size_max = int(self.tree.characters_total * share)
        floor = self.tree.floor_for(size_max)
        assert self.characters({text for (text, _), a in self.model.items() if a > floor}) <= (
            size_max
        )
        if floor:
            left = {text for (text, _), access in self.model.items() if access >= floor}
            assert self.characters(left) > size_max

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.tree._check()
        assert len(self.model) == len(self.tree)
        assert self.characters({text for text, _ in self.model}) == self.tree.characters_total
        for tenant in ("v", "w", "ẅ"):
            accesses = self.of(tenant)
            assert accesses == dict(self.tree.entries(tenant))
            assert len(accesses) == self.tree.entry_count(tenant)
            assert self.characters(set(accesses)) == self.tree.characters(tenant)
            for text, access in accesses.items():
                assert access == self.tree.access(text, tenant=tenant)


class Tokens:
    """A tree of tokens that is spoken to in text: a token for each character."""

    def __init__(self, characters_max: int) -> None:
        self.tree = TokenTree(tokens_max=characters_max)
        self.characters_max = characters_max

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tree, name)

    def __len__(self) -> int:
        return len(self.tree)

    @property
    def characters_total(self) -> int:
        return self.tree.size

    def characters(self, tenant: str) -> int:
        return self.tree.tokens(tenant)

    def entries(self, tenant: str) -> Iterator[tuple[str, int]]:
        for tokens, access in self.tree.entries(tenant):
            yield text_of(tokens), access

    def oldest(self, tenant: str) -> Entry[str] | None:
        found = self.tree.oldest(tenant)
        return None if found is None else Entry(tenant, text_of(found.text), found.access)

    def copy(self) -> Tokens:
        twin = Tokens(self.characters_max)
        twin.tree = self.tree.copy()
        return twin

    def copy_content(self) -> Tokens:
        twin = Tokens(self.characters_max)
        twin.tree = self.tree.copy_content()
        return twin

    def entries_by_key(self, **rest: Any) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        for tokens, held in filter(None, self.tree.entries_by_key(**rest)):
            yield text_of(tokens), held

    def insert(self, text: str, **rest: Any) -> bool:
        return self.tree.insert(tokens_of(text), **rest)

    def match_and_insert(self, text: str, choose: Any, **rest: Any) -> Any:
        return self.tree.match_and_insert(tokens_of(text), choose, **rest)

    def remove(self, text: str, **rest: Any) -> bool:
        return self.tree.remove(tokens_of(text), **rest)

    def match(self, text: str) -> Match:
        return self.tree.match(tokens_of(text))

    def match_each(self, text: str) -> dict[str, int]:
        return self.tree.match_each(tokens_of(text))

    def match_tenant(self, text: str, **rest: Any) -> int:
        return self.tree.match_tenant(tokens_of(text), **rest)

    def access(self, text: str, **rest: Any) -> int | None:
        return self.tree.access(tokens_of(text), **rest)


# Token ids of one, two, three and four bytes.
SPREAD = 0x0101_0101 // 97


def tokens_of(text: str) -> list[int]:
    return [ord(character) * SPREAD % 2**32 for character in text]


def text_of(tokens: Sequence[int]) -> str:
    inverse = pow(SPREAD, -1, 2**32)
    return "".join(chr(token * inverse % 2**32) for token in tokens)


class TokenTreeMachine(RadixTreeMachine):
    """The same steps on a tree of tokens."""

    def new_tree(self, characters_max: int) -> Any:
        return Tokens(characters_max)

    def hash_of(self, text: str) -> int:
        return hash64(b"".join(token.to_bytes(4, "big") for token in tokens_of(text)))


RadixTreeMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
TestRadixTree = RadixTreeMachine.TestCase
TokenTreeMachine.TestCase.settings = RadixTreeMachine.TestCase.settings
TestTokenTree = TokenTreeMachine.TestCase
