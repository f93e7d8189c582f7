from collections import Counter
from dataclasses import replace

import pytest

from cis490.channels import CHANNELS, channel_index
from cis490.errors import SchemaMismatch
from cis490.schema import Schema

SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)


def test_there_are_46_channels_of_which_31_do_not_trust_the_guest():
    counts = Counter((c.source, c.trust) for c in CHANNELS)
    assert counts == {
        ("proc", "host"): 12,
        ("qmp", "host"): 9,
        ("qmp", "guest"): 3,
        ("guest", "guest"): 12,
        ("netflow", "host"): 10,
    }
    assert len({c.key for c in CHANNELS}) == 46
    assert len(channel_index("realistic")) == 31
    assert len(channel_index("oracle")) == 46
    assert [c.name for c in CHANNELS if c.modulus] == ["net_tx_used"]


def test_the_hash_follows_all_that_decides_what_a_column_means(monkeypatch):
    others = [
        replace(SCHEMA, hz=5),
        replace(SCHEMA, max_gap_s=1.0),
        replace(SCHEMA, length_s=5.0),
        replace(SCHEMA, stride_s=2.5),
    ]
    hashes = {schema.sha256 for schema in (SCHEMA, *others)}
    monkeypatch.setattr("cis490.schema.CHANNELS", (*CHANNELS[:-1], replace(CHANNELS[-1], log=True)))
    hashes.add(SCHEMA.sha256)
    monkeypatch.setattr("cis490.schema.VERSION", 99)
    hashes.add(SCHEMA.sha256)
    assert len(hashes) == 7


def test_a_schema_file_is_read_back_and_a_foreign_one_refused():
    content = SCHEMA.to_dict()
    assert Schema.from_dict(content) == SCHEMA
    with pytest.raises(
        SchemaMismatch, match=f"(?s){'0' * 64}.*{SCHEMA.sha256}.*run the workflow again"
    ):
        Schema.from_dict(content | {"sha256": "0" * 64})
