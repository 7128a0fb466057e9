import smoke

BENCH = '-m', 'experiments.bench_feed'


def test_feeds_are_measured_beside_a_batch_that_is_there():
    small = '--networks=tiny', '--feeds=device,cached', '--rounds=1'
    measured, refused = smoke.ended(
        smoke.python(*BENCH, *small), smoke.python(*BENCH, '--feeds=device,disk')
    )
    assert measured[0] == 0, measured[2]
    rows = [line.split(' | ') for line in measured[1].splitlines() if line.startswith('|')][2:]
    assert [row[1] for row in rows] == ['a batch that is there', '`device`', '`cached`']
    assert rows[0][0] == '| resnet10, width 16, 32×32, 64 images'
    assert all(float(row[2]) > 0 for row in rows)
    assert all(float(row[3]) > 0 for row in rows)
    assert all(float(row[4].removesuffix(' |')) > 0 for row in rows[1:])
    assert refused[0] == 1
    assert 'disk: networks tiny, middle, resnet50, feeds' in refused[2]
    assert 'Traceback' not in refused[2]
