import base64
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from cltheory import figures


@pytest.fixture(autouse=True)
def agg():
    mpl.use("agg")
    plt.close("all")
    yield
    plt.close("all")


def frames(count):
    made = []
    for k in range(count):
        figure, axes = plt.subplots(figsize=(2, 2))
        axes.plot([0, k])
        made.append(figures.Frame(f"step {k}", f'A line to "{k}" & no further', figure))
    return made


def test_a_stepper_shows_each_stage_to_everyone():
    stepper = figures.Stepper("fig-lines", frames(3), caption="Lines < curves.", legend="After")
    page = stepper._repr_html_()
    assert repr(stepper) == "After: step 0 | step 1 | step 2"
    assert page.count('type="radio" name="fig-lines"') == 3
    assert page.count(" checked>") == 1
    assert "<legend>After</legend>" in page
    assert "Lines &lt; curves." in page
    assert 'alt="A line to &quot;2&quot; &amp; no further"' in page
    for k in (1, 2, 3):
        assert f'#fig-lines:has(input[value="{k}"]:checked) .frame:nth-of-type({k})' in page
    assert "<script" not in page
    assert "animation" not in page
    assert "transition" not in page
    images = re.findall(r"base64,([^\"]+)", page)
    assert len(set(images)) == 3
    assert all(b"<svg" in base64.b64decode(image) for image in images)
    assert not plt.get_fignums()


def test_a_stepper_is_the_same_each_time():
    one, two = (figures.Stepper("f", frames(2), caption="c")._repr_html_() for _ in range(2))
    assert one == two


def test_a_stepper_needs_two_stages():
    with pytest.raises(ValueError, match="frames must hold at least 2 stages, got 1"):
        figures.Stepper("f", frames(1), caption="c")
