"""Parcels: what they keep, lend and take back, with a lender that counts; and lists of parts that are none."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fabric import BackpressureError, EncodingError
from fabric.parcel import READ_ONLY, Entry, Parcel, Piece, lend_all, unpack

WORDS = st.integers(0, 2**64 - 1)


class CountingLender:
    """Lends as an arena does, and knows what is kept and lent."""

    def __init__(self, most=2**32):
        self.kept = {}
        self.out = {}
        self.most = most
        self._next = 1

    def retain(self, block):
        self.kept[block] = self.kept.get(block, 0) + 1

    def drop(self, block):
        self.kept[block] -= 1
        if not self.kept[block]:
            del self.kept[block]

    def lend(self, piece, reader):
        if len(self.out) == self.most:
            raise BackpressureError("too much is lent already")
        self._next += 1
        self.out[self._next] = piece.block, reader
        return self._next

    def unlend(self, loan):
        del self.out[loan]


def _parcel(lender, blocks=3, inline=b"rest", whole=False):
    pieces = [Piece(4096 * block, 4096 * block + 8, 100 + block, block % 2 == 1) for block in range(blocks)]
    for piece in pieces:
        lender.retain(piece.block)
    return Parcel(lender, pieces, inline, whole)


def test_what_is_lent_says_where_each_part_is():
    lender = CountingLender()
    parcel = _parcel(lender)
    data = parcel.lend(2)
    assert len(data) == len(parcel)
    entries, whole, rest = unpack(data)
    assert (whole, bytes(rest)) == (False, b"rest")
    assert entries == [
        Entry(loan, 4096 * block + 8, 100 + block, READ_ONLY * (block % 2))
        for block, loan in enumerate(sorted(lender.out))
    ]


def test_a_parcel_that_was_not_sent_takes_back_what_it_lent():
    lender = CountingLender()
    parcel = _parcel(lender)
    assert parcel.lend(1) == parcel.lend(1)
    assert len(lender.out) == 3
    del parcel
    assert (lender.out, lender.kept) == ({}, {})


def test_a_parcel_that_was_sent_leaves_its_loans_and_lets_go_of_the_blocks():
    lender = CountingLender()
    parcel = _parcel(lender)
    first = parcel.lend(1)
    parcel.sent()
    second = parcel.lend(2)
    assert first != second
    del parcel
    assert lender.kept == {}
    assert set(lender.out.values()) == {(4096 * block, 1) for block in range(3)}


def test_a_second_parcel_keeps_the_parts_by_itself():
    lender = CountingLender()
    first = _parcel(lender)
    second = first.again()
    del first
    assert lender.kept == {0: 1, 4096: 1, 8192: 1}
    assert unpack(second.lend(3))[2] == b"rest"
    del second
    assert lender.kept == {}


def test_a_parcel_that_could_be_lent_in_part_only_can_be_lent_later():
    lender = CountingLender(most=2)
    parcel = _parcel(lender)
    for _ in range(3):
        with pytest.raises(BackpressureError):
            parcel.lend(1)
    lender.most = 3
    entries, _, _ = unpack(parcel.lend(1))
    assert {entry.loan for entry in entries} == set(lender.out), "each part is lent once"
    del parcel
    assert lender.out == {}


def test_a_batch_lends_its_parcels_and_passes_bytes_on():
    lender = CountingLender()
    parcel = _parcel(lender)
    plain = [b"a", b"b"]
    assert lend_all(plain, 1) == (plain, None)
    blobs, parcels = lend_all([b"a", parcel], 1)
    assert blobs == [b"a", parcel.lend(1)]
    assert parcels == {1: parcel}


@given(st.binary(max_size=200))
@example(struct.pack("<II", 2**32 - 1, 0))
@example(struct.pack("<II", 0, 1))
@example(struct.pack("<II", 1, 2) + bytes(32))
@example(bytes(8))
def test_bytes_that_are_no_parcel_are_refused_or_read_within_their_bounds(data):
    try:
        entries, whole, rest = unpack(data)
    except EncodingError:
        return
    assert 8 + 32 * len(entries) + len(rest) == len(data)
    assert not whole or entries


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), max_size=5), st.binary(max_size=40))
def test_entries_are_read_as_they_were_written(entries, rest):
    data = struct.pack("<II", len(entries), 0) + b"".join(struct.pack("<QQQQ", *entry) for entry in entries) + rest
    assert unpack(data) == ([Entry(*entry) for entry in entries], False, rest)
