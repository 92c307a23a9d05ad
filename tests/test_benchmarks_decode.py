"""The measurements of reading videos run, at toy size, and give the rows that the table is made of."""

from benchmarks import decode, loader


def test_decode_compares_with_whatever_is_installed():
    rows, notes = decode.run("decode", rounds=1, toy=True)
    others = len(decode.installed()[0]) - 1
    assert len(rows) == 4 * others
    assert [row.goal for row in rows] == [0.9, *[None] * (others - 1)] * 4 if others else not rows
    assert all(row.ours == "froster" and row.ratio.median > 0 for row in rows)
    assert len(notes) >= 1


def test_the_loader_counts_clips_with_workers_and_without():
    rows, notes = loader.run("loader", rounds=1, toy=True)
    assert [row.what for row in rows] == ["training clips", "evaluation, 3 views"]
    assert all(row.goal == 1.7 and row.ratio.median > 0 and row.unit == "clips/s" for row in rows)
    assert "16 clips a turn" in notes[0]
