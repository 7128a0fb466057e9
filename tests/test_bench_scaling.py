import smoke

BENCH = '-m', 'experiments.bench_scaling', '--nopaper', '--rounds=1'


def test_devices_are_measured_and_find_the_same():
    ((code, printed, errors),) = smoke.ended(smoke.python(*BENCH, '--devices=1', '--processes=2'))
    assert code == 0, errors
    rows = [line.strip('|').split(' | ') for line in printed.splitlines() if line.startswith('|')]
    assert [row[0].strip() for row in rows[2:]] == ['1 × 1', '2 × 1']
    for row in rows[2:]:
        assert float(row[1]) > 0
        assert float(row[3]) < 1e-5
