"""Nothing matches itself, or what shows an image of its own."""

import numpy as np
import pytest
from test_protocols import records, run


def test_nothing_matches_what_shows_an_image_of_its_own():
    """A tracklet that the gallery shows too, in it not as the first, nor at the same place."""
    query, gallery = records([1], None, [3]), records([1, 1, 2, 2], None, [3, 3, 5, 5])
    with pytest.raises(ValueError, match='none of 1 queries has a valid match'):
        run('v2v', query, gallery, [0, 1, 2, 9, 8], frames=2)
    query, gallery = records([1], None, [3]), records([1, 1, 1, 2], None, [4, 4, 3, 5])
    (ranking,) = run('v2v', query, gallery, [0, 7, 8, 5, 5.5], frames=2)['']
    assert ranking.first_rank.tolist() == [2]  # at 5: tracklet 4 at 7.5, behind 5 at 5.5


@pytest.mark.parametrize('known', [True, False])
def test_a_query_that_is_in_the_gallery_does_not_find_itself(known):
    """Of one name, identity, camera and frame, in another folder; or of one path."""
    frames = [5, 6] if known else [-1, -1]
    query = records([1, 2], [0, 1], frames=frames)
    query = query._replace(paths=np.array(['image_query/a.jpg', 'image_query/b.jpg']))
    gallery = records([1, 2, 1, 2], [0, 1, 1, 0], frames=[*frames, 7, 8])
    folder = 'image_test' if known else 'image_query'
    names = [f'{folder}/{name}.jpg' for name in 'abcd']
    gallery = gallery._replace(paths=np.array(names))
    places = [0, 10, 0, 10, 9, 1]
    (ranking,) = run('veri_image', query, gallery, places, same_camera='keep')['']
    assert ranking.first_rank.tolist() == [2, 2]


def test_other_images_of_one_name_may_match():
    """Without a known frame a name says nothing."""
    query = records([1], [-1])._replace(paths=np.array(['query/1/0.jpg']))
    gallery = records([1, 2], [-1, -1])._replace(paths=np.array(['gallery/1/0.jpg', 'x.jpg']))
    (ranking,) = run('market', query, gallery, [0, 1, 2])['']
    assert ranking.first_rank.tolist() == [1]
