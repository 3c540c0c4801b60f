"""The block index answers as the radix tree does, at the ends of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.limits import BLOCKS_MAX
from meshlib.prefix import (
    ACCESS_MAX,
    BlockIndex,
    Chain,
    Match,
    Placement,
    RadixTree,
    text_chain,
    token_chain,
)
from meshlib.prefix.chains import bytes_to_blocks

GOLDEN_TEXT = (1510214817639304643, 9058400750390158365, 6877630445146846748)
GOLDEN_TOKENS = (1167257437131243024, 7840600602417302954)


def index_of(*entries: tuple[list[int], str, int]) -> BlockIndex:
    index = BlockIndex()
    for chain, tenant, access in entries:
        index.insert(chain, tenant=tenant, access=access)
    index._check()
    return index


def blocks_of(index: BlockIndex) -> dict[tuple[int, str], int]:
    return {
        (block, tenant): access
        for tenant in index.tenants()
        for block, access in index.entries(tenant)
    }


# Chains


def test_a_chain_is_cut_at_whole_blocks() -> None:
    """What does not fill a block is left out."""
    assert [0, 0, 1, 1, 2] == [
        len(text_chain("x" * length, block_characters=4)) for length in (0, 3, 4, 7, 8)
    ]


def test_chains_share_as_many_blocks_as_their_texts_do() -> None:
    """A block's hash names everything before it."""
    one = text_chain("aaaabbbbcccc", block_characters=4)
    other = text_chain("aaaabbbbcccd", block_characters=4)
    moved = text_chain("bbbbaaaacccc", block_characters=4)
    assert one[:2] == other[:2]
    assert one[2] != other[2]
    assert not set(one) & set(moved)


def test_chains_are_the_same_in_every_process_and_release() -> None:
    """Their hashes travel."""
    assert text_chain("Grüße, \ud800Welt", block_characters=4) == GOLDEN_TEXT
    assert token_chain([1, 2, 3, 2**32 - 1, 5], block_tokens=2) == GOLDEN_TOKENS


@pytest.mark.parametrize("tokens", [[-1, 0], [2**32, 0]])
def test_tokens_are_of_32_bits(tokens: list[int]) -> None:
    """Others are refused."""
    with pytest.raises(InvalidValueError):
        token_chain(tokens, block_tokens=2)


def test_blocks_have_a_size() -> None:
    """A block of nothing would never end."""
    with pytest.raises(InvalidValueError):
        text_chain("text", block_characters=0)
    with pytest.raises(InvalidValueError):
        token_chain([1], block_tokens=0)


# Matching


def test_the_leading_blocks_that_somebody_holds_match() -> None:
    """All who hold them are named, sorted."""
    index = index_of(([1, 2, 3], "b", 1), ([1, 2, 4], "a", 1), ([1], "c", 1))
    assert [Match(("b",), 3), Match(("a", "b"), 2), Match(("a", "b", "c"), 1), Match((), 0)] == [
        index.match([1, 2, 3, 5]),
        index.match([1, 2, 9]),
        index.match([1]),
        index.match([9, 1]),
    ]


def test_one_tenant_must_hold_all_of_a_match() -> None:
    """Blocks of different tenants do not add up to a prefix."""
    index = index_of(([1], "a", 1), ([2], "b", 1), ([1, 2], "c", 1))
    assert Match(("c",), 2) == index.match([1, 2])
    index.remove_tenant("c")
    assert Match(("a",), 1) == index.match([1, 2])


def test_a_gap_ends_the_match() -> None:
    """An engine cannot reuse what comes after a block that is gone."""
    index = index_of(([1, 2, 3], "a", 1))
    index.remove([2], tenant="a")
    index._check()
    assert Match(("a",), 1) == index.match([1, 2, 3])
    assert index.match_tenant([1, 2, 3], tenant="a") == 1


def test_each_tenant_has_a_match_of_its_own() -> None:
    """`match_each` says how far each one comes, `match_tenant` how far one does."""
    index = index_of(([1, 2, 3], "b", 1), ([1, 2, 4], "a", 1), ([1], "c", 1), ([7], "d", 1))
    assert index.match_each([1, 2, 3, 5]) == {"a": 2, "b": 3, "c": 1}
    assert index.match_each([8]) == {}
    assert [index.match_tenant([1, 2, 3], tenant=tenant) for tenant in "abcde"] == [2, 3, 1, 0, 0]


@given(
    st.lists(st.tuples(st.text(alphabet="ab", max_size=9), st.sampled_from("vw")), max_size=8),
    st.text(alphabet="ab", max_size=9),
)
def test_it_agrees_with_the_radix_tree_at_whole_blocks(
    entries: list[tuple[str, str]], request: str
) -> None:
    """Cut to whole blocks, both find the same."""
    tree, index = RadixTree(), BlockIndex()
    for text, tenant in entries:
        whole = text[: len(text) - len(text) % 2]
        if whole:
            tree.insert(whole, tenant=tenant, access=1)
        index.insert(text_chain(text, block_characters=2), tenant=tenant, access=1)
    index._check()
    expected = {
        tenant: length // 2 for tenant, length in tree.match_each(request).items() if length > 1
    }
    assert expected == index.match_each(text_chain(request, block_characters=2))


# Inserting and removing


def test_a_block_keeps_its_highest_access() -> None:
    """Insertion counts what is new or rose."""
    index = BlockIndex()
    assert [2, 0, 1, 2] == [
        index.insert(chain, tenant="w", access=access)
        for chain, access in (([1, 2], 5), ([1, 2], 4), ([2, 3], 5), ([1, 1, 2], 7))
    ]
    assert blocks_of(index) == {(1, "w"): 7, (2, "w"): 7, (3, "w"): 5}


def test_placing_tells_what_was_there() -> None:
    """A block is its own hash."""
    index = BlockIndex()
    assert Placement(5, None) == index.place(5, tenant="w", access=2)
    assert Placement(5, 2) == index.place(5, tenant="w", access=3)
    assert Placement(5, 3) == index.place(5, tenant="w", access=1)
    assert index.access(5, tenant="w") == 3
    assert index.access(5, tenant="v") is None


@pytest.mark.parametrize(
    ("chain", "tenant", "access", "error"),
    [
        ([1, -1], "w", 1, InvalidValueError),
        ([1, 2**64], "w", 1, InvalidValueError),
        ([1, True], "w", 1, InvalidTypeError),
        ([1, "2"], "w", 1, InvalidTypeError),
        ([1], "", 1, InvalidValueError),
        ([1], "w", -1, InvalidValueError),
        ([1], "w", ACCESS_MAX + 1, InvalidValueError),
        ([1], "w", 1.5, InvalidTypeError),
    ],
)
def test_what_is_no_block_is_refused(
    chain: list[int], tenant: str, access: int, error: type[Exception]
) -> None:
    """And the index is unchanged."""
    index = index_of(([7], "v", 1))
    with pytest.raises(error):
        index.insert(chain, tenant=tenant, access=access)
    with pytest.raises(error):
        index.place(chain[-1], tenant=tenant, access=access)
    index._check()
    assert blocks_of(index) == {(7, "v"): 1}


def test_the_size_is_enforced_at_insertion() -> None:
    """A chain with too many new blocks is refused whole; touches need no room."""
    index = BlockIndex(blocks_max=3)
    index.insert([1, 2], tenant="w", access=1)
    with pytest.raises(LimitError):
        index.insert([2, 3, 4], tenant="w", access=2)
    assert blocks_of(index) == {(1, "w"): 1, (2, "w"): 1}
    assert index.insert([1, 2, 3], tenant="w", access=2) == 3


@pytest.mark.parametrize(
    ("blocks_max", "error"), [(0, InvalidValueError), (4 * BLOCKS_MAX + 1, LimitError)]
)
def test_the_size_setting_is_checked(blocks_max: int, error: type[Exception]) -> None:
    """An index without room, or over the package's limit, is not made."""
    with pytest.raises(error):
        BlockIndex(blocks_max=blocks_max)


def test_tenants_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tenant too many is refused, a known one is not."""
    monkeypatch.setattr("meshlib.prefix.block_index.TENANTS_MAX", 2)
    index = index_of(([1], "a", 1), ([1], "b", 1))
    with pytest.raises(LimitError):
        index.insert([1], tenant="c", access=1)
    assert index.insert([2], tenant="b", access=1) == 1


def test_removing_counts_what_was_there() -> None:
    """Unknown blocks and tenants are passed over."""
    index = index_of(([1, 2], "a", 1), ([1], "b", 1))
    assert [1, 0, 0] == [
        index.remove([2, 3], tenant="a"),
        index.remove([2], tenant="b"),
        index.remove([2], tenant="c"),
    ]
    index._check()
    assert blocks_of(index) == {(1, "a"): 1, (1, "b"): 1}


def test_eviction_drops_what_is_at_or_under_the_floor() -> None:
    """Oldest first, of that tenant alone; a touch saves a block."""
    index = index_of(([1, 2, 3], "a", 1), ([2], "a", 3), ([4], "a", 2), ([1], "b", 1))
    assert index.evict("a", floor=2) == [(1, 1), (3, 1), (4, 2)]
    index._check()
    assert blocks_of(index) == {(2, "a"): 3, (1, "b"): 1}
    assert index.evict("nobody", floor=2) == []


def test_the_oldest_block_is_known() -> None:
    """For each tenant."""
    index = index_of(([1], "a", 5), ([2], "a", 3), ([1], "a", 9))
    assert [(2, 3), None] == [index.oldest("a"), index.oldest("b")]


def test_the_floor_for_a_size_leaves_no_more_than_that() -> None:
    """And no more is evicted than ties require."""
    index = index_of(([1, 2], "a", 1), ([3], "b", 2), ([4], "a", 2), ([5], "b", 3))
    assert [index.floor_for(size) for size in (0, 1, 2, 3, 4, 5, 9)] == [3, 2, 2, 1, 1, 0, 0]


def test_a_tenant_s_place_is_used_again() -> None:
    """Tenants that come and go do not make the masks grow."""
    index = index_of(([1], "stays", 1))
    for number in range(500):
        index.insert([1, 2], tenant=f"passing {number}", access=1)
        index.remove_tenant(f"passing {number}")
    index._check()
    assert len(index._names) == 2


def test_a_copy_is_independent() -> None:
    """Neither index sees what happens to the other."""
    index = index_of(([1, 2], "a", 1), ([1], "b", 2))
    before = blocks_of(index)
    twin = index.copy()
    twin._check()
    twin.insert([3], tenant="c", access=1)
    twin.evict("a", floor=1)
    twin._check()
    index._check()
    assert before == blocks_of(index)
    assert blocks_of(twin) == {(1, "b"): 2, (3, "c"): 1}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["insert", "remove", "evict", "remove_tenant"]),
            st.lists(st.integers(0, 4), max_size=4),
            st.sampled_from("vw"),
            st.integers(0, 5),
        ),
        max_size=25,
    )
)
def test_it_agrees_with_a_plain_dict(
    steps: list[tuple[str, list[int], str, int]],
) -> None:
    """Whatever is done to both."""
    index, model = BlockIndex(), dict[tuple[int, str], int]()
    for what, blocks, tenant, access in steps:
        if what == "insert":
            index.insert(blocks, tenant=tenant, access=access)
            for block in blocks:
                model[block, tenant] = max(access, model.get((block, tenant), 0))
        elif what == "remove":
            index.remove(blocks, tenant=tenant)
            for block in blocks:
                model.pop((block, tenant), None)
        else:
            floor = access if what == "evict" else ACCESS_MAX
            index.evict(tenant, floor=floor)
            model = {key: held for key, held in model.items() if key[1] != tenant or held > floor}
        index._check()
        assert model == blocks_of(index)
        assert len(model) == len(index)


# Runs


def test_a_chain_is_one_run_with_one_record() -> None:
    """However many blocks it has; who shares a part of it parts it once."""
    index = BlockIndex()
    index.insert(text_chain("a" * 3000, block_characters=4), tenant="w", access=1)
    assert (1, 1) == (len(index._runs.pieces), len(index._holdings["w"].recency.heap))
    index.insert(text_chain("a" * 2000 + "b" * 1000, block_characters=4), tenant="v", access=2)
    index._check()
    assert len(index._runs.pieces) == 3
    assert index.entry_count("v") == index.entry_count("w") == 750


def test_whole_chains_need_no_directory() -> None:
    """Where each block is, is kept from the first on that comes alone."""
    index, chain = BlockIndex(), text_chain("abcdefgh", block_characters=2)
    index.insert(chain, tenant="w", access=1)
    index.match(chain)
    index.match_each(chain)
    index.evict("w", floor=0)
    found = [index._runs.has_directory]
    index.remove(chain[1:2], tenant="w")
    index._check()
    assert [False, True] == [*found, index._runs.has_directory]
    assert Match(("w",), 1) == index.match(chain)


def test_an_index_by_block_has_its_directory_from_the_beginning() -> None:
    """So no later operation has to find all blocks; it answers as any other does."""
    index, other = BlockIndex(is_by_block=True), BlockIndex()
    chain = text_chain("x" * 1024, block_characters=64)
    assert index._runs.has_directory
    for each in (index, other):
        assert len(chain) == each.insert(chain, tenant="w", access=1)
        assert 1 == each.insert(chain[3:4], tenant="v", access=2)
    assert blocks_of(index) == blocks_of(other)
    index._check()


def test_placing_many_tells_what_was_there() -> None:
    """For those that are new or were raised, each once."""
    index = index_of(([1, 2], "w", 5), ([3], "w", 1))
    placed = index.place_all([1, 3, 4, 4], tenant="w", access=4)

    assert [(3, 1), (4, None)] == placed
    assert [1, 9] == index.older([1, 2, 9], tenant="w", access=6)[::2]
    assert [9] == index.older([1, 2, 9], tenant="w", access=5)
    index._check()


def runs_of(index: BlockIndex) -> list[list[int]]:
    """Return the blocks of each run."""
    return sorted(list(bytes_to_blocks(piece)) for piece in index._runs.pieces if piece)


def test_blocks_that_come_sorted_come_into_two_runs() -> None:
    """As peers send them: what was there before, and what is new between it."""
    index = BlockIndex(is_by_block=True)
    index.insert(list(range(0, 40, 2)), tenant="w", access=1)
    index.insert(list(range(40)), tenant="w", access=2)

    assert [list(range(0, 40, 2)), list(range(1, 40, 2))] == runs_of(index)
    index._check()


def test_a_run_that_is_used_again_is_not_parted() -> None:
    """In whatever order its blocks come, and whoever uses it; others are parted as ever."""
    index = BlockIndex(is_by_block=True)
    index.insert([5, 3, 8, 1], tenant="w", access=1)
    index.insert([20, 21, 22], tenant="w", access=1)
    index.insert([1, 2, 3, 4, 5, 8, 21], tenant="v", access=2)

    assert [[2, 4], [5, 3, 8, 1], [20], [21], [22]] == runs_of(index)
    assert [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (8, 2), (21, 2)] == sorted(index.entries("v"))
    assert [1, 1] == [index.access(block, tenant="w") for block in (5, 21)]
    index._check()


def test_what_parted_runs_have_in_common_comes_together() -> None:
    """After a few prompts that begin alike, their beginning is a run of its own."""
    index, beginning = BlockIndex(is_by_block=True), list(range(0, 400, 20))
    for number in range(1, 4):
        own = [block + number for block in range(0, 400, 40)]
        index.insert(sorted(beginning + own), tenant="w", access=number)

    assert beginning in runs_of(index)
    assert len(runs_of(index)) <= 15
    index._check()


def test_blocks_placed_one_by_one_come_into_one_run() -> None:
    """Also when they are raised one by one, as a replicated cache does it."""
    index = index_of((list(range(1, 100)), "w", 1))
    for access in (2, 3):
        for block in range(1, 150):
            index.place(block, tenant="w", access=access)
    index._check()
    assert sum(map(bool, index._runs.pieces)) == 1
    assert Match(("w",), 149) == index.match(range(1, 200))


def test_what_is_no_block_matches_nothing() -> None:
    """A request may be anything; what comes before is matched."""
    index = index_of(([1, 2, 3], "w", 1))
    for odd in (-1, 2**64, "x", None):
        assert Match(("w",), 2) == index.match([1, 2, odd, 3])  # type: ignore[list-item]


def test_a_chain_survives_only_whole() -> None:
    """A part of one is a plain tuple, of which nothing is presumed."""
    chain = text_chain("abcdefgh", block_characters=2)
    assert isinstance(chain, Chain)
    assert not isinstance(chain[1:], Chain)
    assert chain.data == b"".join(block.to_bytes(8, "big") for block in chain)


TEXTS = st.text(alphabet="ab", min_size=1, max_size=8)
STEPS = st.one_of(
    st.tuples(st.just("chain"), TEXTS),
    st.tuples(st.just("insert"), TEXTS),
    st.tuples(st.just("place"), TEXTS),
    st.tuples(st.just("remove"), TEXTS),
    st.tuples(st.sampled_from(["evict", "remove_tenant", "copy"]), st.just("")),
)


@given(
    steps=st.lists(st.tuples(STEPS, st.sampled_from("uvw"), st.integers(0, 5)), max_size=25),
    whole_only=st.booleans(),
    request=TEXTS,
)
def test_chains_agree_with_a_plain_dict(
    steps: list[tuple[tuple[str, str], str, int]], whole_only: bool, request: str
) -> None:
    """Whatever is done to both: whole chains alone, or blocks one by one as well."""
    index, model = BlockIndex(), dict[tuple[int, str], int]()
    moments = [(index.copy_content(), model.copy())]
    asked = text_chain(request, block_characters=1)
    for (what, text), tenant, access in steps:
        chain = text_chain(text, block_characters=1)
        if what == "copy":
            index = index.copy()
        elif what in ("evict", "remove_tenant"):
            floor = access if what == "evict" else ACCESS_MAX
            index.evict(tenant, floor=floor)
            model = {key: held for key, held in model.items() if key[1] != tenant or held > floor}
        elif what == "chain" or whole_only:
            rising = sum(model.get((block, tenant), -1) < access for block in chain)
            assert rising == index.insert(chain, tenant=tenant, access=access)
            for block in chain:
                model[block, tenant] = max(access, model.get((block, tenant), 0))
        elif what == "remove":
            known = sum(model.pop((block, tenant), None) is not None for block in chain[1::2])
            assert known == index.remove(chain[1::2], tenant=tenant)
        else:
            blocks = chain[len(chain) // 2 :]
            if what == "insert":
                index.insert(blocks, tenant=tenant, access=access)
            else:
                for block in blocks:
                    index.place(block, tenant=tenant, access=access)
            for block in blocks:
                model[block, tenant] = max(access, model.get((block, tenant), 0))
        index._check()
        assert model == blocks_of(index)
        moments.append((index.copy_content(), model.copy()))
        reached: dict[str, int] = {}
        for holder in "uvw":
            while len(asked) > reached.get(holder, 0) and (
                (asked[reached.get(holder, 0)], holder) in model
            ):
                reached[holder] = reached.get(holder, 0) + 1
        longest = max(reached.values(), default=0)
        holders = tuple(sorted(each for each in reached if reached[each] == longest))
        assert Match(holders, longest) == index.match(asked)
        assert reached == index.match_each(asked)
        oldest = min(((held, key[1]) for key, held in model.items()), default=None)
        assert oldest == ((found := index.oldest_tenant()) and (found[1], found[0]))
    for content, expected in moments:
        assert expected == blocks_of(content)
