"""Identity, camera and view from file names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreid.data.datasets import BENCHMARKS, Sample
from fastreid.utils.errors import UserError

FORMATS = {benchmark.name: benchmark.names for benchmark in BENCHMARKS}
ids = st.integers(0, 99_999)


@given(camera=st.integers(1, 13), light=st.sampled_from(["day", "night"]), pid=ids, index=ids)
def test_cargo(camera, light, pid, index):
    path = f"/x/Cam{camera}_{light}_{pid}_{index}.jpg"
    assert FORMATS["CARGO"].parse(path) == Sample(path, pid, camera - 1, int(camera >= 6))


@pytest.mark.parametrize(
    ("name", "cameras"),
    [
        ("CARGO", {camid: str(camid + 1) for camid in range(13)}),
        ("AG_ReID_v1", {0: "0", 1: "3"}),
        ("AG_ReID_v2", {0: "0", 1: "3", 2: "2"}),
        ("LAGPeR", {camid: str(camid + (camid > 9)) for camid in range(1, 22)}),
        ("G2APS_ReID", {0: "0", 1: "ground"}),
    ],
)
def test_cameras_have_the_names_of_the_files(name, cameras):
    (benchmark,) = (benchmark for benchmark in BENCHMARKS if benchmark.name == name)
    assert benchmark.camera_names == cameras


@given(
    person=st.integers(0, 9999),
    day=st.integers(0, 9999),
    noon=st.integers(0, 1),
    altitude=st.integers(0, 2),
    camera=st.sampled_from([0, 3, 2]),
    frame=ids,
)
def test_ag_reid_joins_person_time_and_altitude(person, day, noon, altitude, camera, frame):
    path = f"d/P{person:04}T{day:04}{noon}A{altitude}C{camera}F{frame}.jpg"
    view = {0: 0, 3: 1, 2: 2}[camera]
    pid = ((person * 10_000 + day) * 10 + noon) * 10 + altitude
    assert FORMATS["AG_ReID_v2"].parse(path) == Sample(path, pid, view, view)
    if camera == 2:
        with pytest.raises(UserError, match="no camera 2; its cameras are 0, 3"):
            FORMATS["AG_ReID_v1"].parse(path)
    else:
        assert FORMATS["AG_ReID_v1"].parse(path) == Sample(path, pid, view, view)


@given(pid=st.one_of(st.just(-1), ids), camera=st.integers(0, 30), rest=st.text("sf0123_", max_size=6))
def test_lagper_has_cameras_1_to_22_but_no_10(pid, camera, rest):
    path = f"{pid:04}_c{camera}_{rest}.jpg"
    if camera in (0, 10) or camera > 22:
        with pytest.raises(UserError, match=f"no camera {camera};"):
            FORMATS["LAGPeR"].parse(path)
    else:
        sample = FORMATS["LAGPeR"].parse(path)
        assert (sample.pid, sample.camid) == (pid, camera - 1 if camera > 10 else camera)
        assert sample.viewid == (0 if camera in (3, 6, 9, 13, 16, 19, 22) else 1)


@given(pid=st.one_of(st.just(-1), ids), camera=st.integers(0, 99), video=st.integers(0, 99))
def test_g2aps_knows_camera_0_as_aerial_and_all_others_as_ground(pid, camera, video):
    path = f"{pid}_c{camera}v{video}_7.jpg"
    assert FORMATS["G2APS_ReID"].parse(path) == Sample(path, pid, min(camera, 1), min(camera, 1))


@pytest.mark.parametrize("benchmark", FORMATS)
@given(name=st.text(max_size=20).filter(lambda name: "/" not in name))
def test_any_other_name_is_refused_with_an_example(benchmark, name):
    names = FORMATS[benchmark]
    if names.pattern.match(name):
        return
    with pytest.raises(UserError) as error:
        names.parse(f"folder/{name}")
    assert names.example in str(error.value)


@pytest.mark.parametrize("benchmark", FORMATS)
def test_the_example_of_the_error_message_is_a_good_name(benchmark):
    assert FORMATS[benchmark].parse(FORMATS[benchmark].example.split()[0]).pid >= 0
