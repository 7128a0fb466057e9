"""Which queries the check finds a match for, by the rules of each protocol."""

import pytest
from PIL import Image

from kd_jax.data import check
from kd_jax.data.findings import Queries
from kd_jax.data.records import Source, from_rows


def images(*rows, side='test'):
    """Images of (identity, camera, tracklet, frame), the last two unknown if left out."""
    return from_rows(
        [(f'{side}/{i}.jpg', *row, *[-1] * (4 - len(row))) for i, row in enumerate(rows)]
    )


TRAIN = images((101, 0), (101, 1), (102, 0), (102, 1), side='train')


def source(query, gallery, **facts):
    return Source(TRAIN, query, gallery, Image.open, None, **facts)


def pool(*rows, **facts):
    both = images(*rows)
    return source(both, both, **facts)


def counts(source, rule, *protocols):
    return check.results(source, dict.fromkeys(protocols, rule))


# Identity 3 is seen again by another camera, 4 by its own only, 5 never, 6 by another query.
ASKING = [(3, 0, 0, 1), (3, 0, 0, 2), (3, 0, 0, 3), (4, 0, 1, 1), (4, 0, 1, 2), (5, 0, 2, 1)]
ASKING += [(5, 0, 2, 2), (6, 0, 3, 1), (6, 1, 4, 1)]
ASKED = [(3, 1, 5, 1), (3, 1, 5, 2), (4, 0, 6, 9), (0, 2, 7, 1)]
VIDEO = source(
    images(*ASKING, side='query'), images(*ASKED, side='gallery'), protocol='mars', tracklets=True
)


def test_tracklets_ask_once_and_join_the_gallery_of_mars():
    found = counts(VIDEO, 'drop', 'i2v', 'v2v', 'mars')
    assert found == {
        'i2v': Queries(all=5, absent=3, junk=1),
        'v2v': Queries(all=5, absent=3, junk=1),
        'mars i2v': Queries(all=5, absent=0, junk=2),
        'mars v2v': Queries(all=5, absent=0, junk=2),
    }
    assert found['mars i2v'].valid == 3
    # Nothing matches itself: 5 has no other tracklet.
    assert counts(VIDEO, 'keep', 'mars')['mars v2v'] == Queries(5, 0, 1)
    assert counts(VIDEO, 'keep', 'v2v') == {'v2v': Queries(5, 3, 0)}


def test_images_ask_where_the_data_does_not_consist_of_tracklets():
    found = counts(VIDEO._replace(tracklets=False), 'drop', 'market', 'i2v')
    assert found == {'market': Queries(9, 4, 2), 'i2v': Queries(9, 4, 2)}


def test_near_frames_are_no_match_of_a_tiger():
    near, far = [(1, 0, 0, 0), (1, 0, 0, 3)], [(2, 0, 1, 0), (2, 0, 1, 4)]
    other_clip, alone = [(4, 0, 3, 7), (4, 1, 4, 7)], [(3, 0, 2, 0)]
    tigers = pool(*near, *far, *other_clip, *alone)
    assert counts(tigers, 'keep', 'atrw') == {'atrw': Queries(all=7, absent=0, junk=3)}


def test_every_test_set_is_a_row():
    small, large = (images(*((pid, -1) for pid in pids)) for pids in ((1, 1, 2), (1, 1, 2, 2, 2)))
    vehicles = source(small, small, test='800', more={'1600': (large, large)})
    assert counts(vehicles, 'keep', 'vehicleid') == {
        'vehicleid 800': Queries(1, 0, 0),
        'vehicleid 1600': Queries(3, 0, 0),
    }


def printed(source, monkeypatch, capsys, *arguments):
    """What the command prints of a data set, and its exit code."""
    monkeypatch.setattr(check, 'read_source', lambda args: source)
    with pytest.raises(SystemExit) as exit:
        check.run(['--dataset=carousel', '--images=none', '--sheet=none', *arguments])
    return capsys.readouterr().out, int(exit.value.code)


def test_the_rule_on_cameras_is_the_protocols(monkeypatch, capsys):
    tigers = pool((1, 0, 0, 0), (1, 0, 1, 0), protocol='atrw')
    text, code = printed(tigers, monkeypatch, capsys)
    assert ['atrw', '2', '2', '0', '0'] in [line.split() for line in text.splitlines()]
    assert code == 0
    text, code = printed(tigers, monkeypatch, capsys, '--protocol=cuhk03_classic')
    assert 'cuhk03_classic: all queries and gallery images are of camera c1' in text
    assert code == 1
    with pytest.raises(ValueError, match='protocol atrw has no rule on cameras'):
        check.run(['--dataset=carousel', '--same_camera=drop'])


def test_a_query_that_is_in_the_gallery_is_no_match_of_itself():
    """Of the same paths in query and gallery, whatever the rule on cameras."""
    both = source(images((3, 0), (4, 1)), images((3, 0), (4, 1), (3, 1)))
    assert counts(both, 'keep', 'market') == {'market': Queries(2, 0, 1)}


def test_a_test_set_without_images_is_no_row():
    nothing, some = images(), images((3, 0), (3, 1))
    more = {'800': (some, images((3, 1), side='gallery'))}
    for query, gallery in ((nothing, some), (some, nothing), (nothing, nothing)):
        assert list(counts(source(query, gallery, more=more), 'drop', 'market')) == ['market 800']


@pytest.mark.parametrize(
    ('rows', 'expected'),
    [
        ([(3, 2), (3, 2), (4, 2)], Queries(3, 0, 3, camera=2)),
        ([(3, 2), (3, 2), (3, 1), (4, 1)], Queries(4, 0, 1)),  # there are matches
        ([(3, 2), (3, 2), (4, 1), (4, 1)], Queries(4, 0, 4)),  # two cameras
        ([(3, 2), (4, 2)], Queries(2, 0, 2)),  # nor by other rules
        ([(3, -1), (4, -1)], Queries(2, 0, 2)),
    ],
)
def test_a_single_camera_is_named_where_it_alone_is_why(rows, expected):
    assert counts(pool(*rows), 'drop', 'cuhk03_classic') == {'cuhk03_classic': expected}


def test_a_single_camera_before_queries_and_gallery():
    query, gallery = images((3, 0), (5, 0)), images((3, 0), (4, 0), side='gallery')
    assert counts(source(query, gallery), 'drop', 'market') == {'market': Queries(2, 1, 1, 0)}
    assert counts(source(query, gallery), 'keep', 'market') == {'market': Queries(2, 1, 0)}
    seen_elsewhere = images((3, 0), (4, 1), side='gallery')
    assert counts(source(query, seen_elsewhere), 'drop', 'market')['market'].camera is None


@pytest.mark.parametrize(
    ('protocol', 'rule', 'data', 'words'),
    [
        ('vehicleid', 'keep', VIDEO, 'protocol vehicleid takes queries and gallery from one pool'),
        ('mars', 'drop', pool((3, 0, 0), (3, 1, 1)), 'protocol mars takes .* apart'),
        ('atrw', 'drop', pool((3, 0, 0), (3, 1, 1)), 'set evaluate.same_camera=keep'),
        ('v2v', 'drop', source(images((3, 0)), images((3, 1))), 'no query image has a known one'),
    ],
)
def test_protocols_that_do_not_fit(protocol, rule, data, words):
    with pytest.raises(ValueError, match=words):
        counts(data, rule, protocol)
